//! `executr exec`: a command in a job's sandbox.
//!
//! - [`find`]: which job is meant, and where it is;
//! - [`attend`]: what is typed and what is written, while the command runs at the other end of a line;
//! - [`streams`]: standard input and output of this process, each in a thread of its own;
//! - [`terminal`]: the terminal this process is in;
//! - [`kept`]: the same in the directory that a job left.

mod attend;
mod find;
mod kept;
mod streams;
mod terminal;

use executr_api::console::{ConsoleAsk, Terminal};

use self::find::Found;
use crate::arguments::ExecArgs;
use crate::errors::{Failure, Result};
use crate::exit::Exit;

pub(super) async fn exec(arguments: ExecArgs) -> Result<Exit> {
    exec_there(arguments).await.map_err(Failure::beside_a_jobs)
}

async fn exec_there(arguments: ExecArgs) -> Result<Exit> {
    let wants_terminal = match (arguments.terminal, arguments.no_terminal) {
        (true, _) => true,
        (_, true) => false,
        _ => terminal::is_all_around(),
    };
    let size = terminal::size();
    let line = match find::find(&arguments).await? {
        Found::Line(line) => line,
        Found::Kept(directory) => return Err(kept::exec(&directory, &arguments.command)),
    };
    let ask = ConsoleAsk {
        command: arguments.command,
        terminal: wants_terminal.then(|| Terminal { size, kind: terminal::kind() }),
    };
    attend::attend(line, ask).await
}
