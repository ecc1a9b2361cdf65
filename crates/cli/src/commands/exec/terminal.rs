//! The terminal this process is in.

use std::io::{self, IsTerminal as _};

use executr_api::console::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Where nobody knows better.
const USUAL: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// Whether both what is typed and what is written is a terminal's.
pub(super) fn is_all_around() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// How large it is now.
pub(super) fn size() -> TerminalSize {
    let known = [rustix::stdio::stdin(), rustix::stdio::stdout()].into_iter().find_map(|fd| tcgetwinsize(fd).ok());
    known
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map_or(USUAL, |size| TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// What it understands.
pub(super) fn kind() -> Option<String> {
    std::env::var("TERM").ok().filter(|kind| !kind.is_empty())
}

/// The terminal as long as every key is passed on as it is. Dropped, it is as it was before; also while a panic unwinds.
#[derive(Debug)]
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` when standard input is no terminal.
    pub(super) fn enter() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}
