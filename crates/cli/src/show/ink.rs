//! Colour, where there is someone to see it.

use std::borrow::Cow;
use std::io::{self, IsTerminal};

/// What a piece of text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Nothing special.
    Plain,
    /// It went well.
    Good,
    /// It goes on.
    Busy,
    /// It went wrong.
    Bad,
    /// Said beside the matter.
    Note,
    /// The heading of a table.
    Heading,
}

/// Whether one of our streams shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ink {
    colours: bool,
}

impl Ink {
    /// No colours.
    pub(crate) const NONE: Self = Self { colours: false };

    /// For what goes to standard output.
    pub(crate) fn for_stdout() -> Self {
        Self::for_stream(&io::stdout())
    }

    /// For what goes to standard error.
    pub(crate) fn for_stderr() -> Self {
        Self::for_stream(&io::stderr())
    }

    fn for_stream(stream: &impl IsTerminal) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let colours = decide(
            variable("NO_COLOR").is_some(),
            variable("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            stream.is_terminal() && variable("TERM").is_some_and(|value| value != "dumb"),
        );
        Self { colours }
    }

    /// The text in its colour.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> Cow<'_, str> {
        let code = match paint {
            _ if !self.colours || text.is_empty() => return Cow::Borrowed(text),
            Paint::Plain => return Cow::Borrowed(text),
            Paint::Good => "32",
            Paint::Busy => "33",
            Paint::Bad => "31",
            Paint::Note => "2",
            Paint::Heading => "1",
        };
        Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m"))
    }
}

/// <https://no-color.org> wins over <https://bixense.com/clicolors>, and both over what we find.
fn decide(no_colour: bool, forced: bool, capable_terminal: bool) -> bool {
    !no_colour && (forced || capable_terminal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_and_for_those_who_insist() {
        assert!(decide(false, false, true) && decide(false, true, false));
        assert!(!decide(true, true, true) && !decide(false, false, false));
        assert_eq!(Ink::NONE.paint(Paint::Bad, "x"), "x");
        assert_eq!(Ink { colours: true }.paint(Paint::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
