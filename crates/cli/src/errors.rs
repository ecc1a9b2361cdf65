//! The one place where an error becomes words and an exit code.
//!
//! Every command returns a [`Failure`]; [`Failure::report`] tells the user what went wrong and, on a line of its own,
//! what to do about it.

use std::fmt::Display;
use std::io::{self, Write as _};

use executr_api::{ApiError, ErrorCode};

use crate::exit::Exit;
use crate::show::{Ink, Paint};

/// What ended a command early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something to tell, what to do about it, and the exit code.
    Told {
        /// What went wrong.
        problem: String,
        /// What to do, if there is more to say than the problem itself says.
        remedy: Option<String>,
        /// The exit code.
        exit: Exit,
    },
    /// Nobody reads our output any more: nothing to say.
    OutputClosed,
}

/// The result of a command and of its parts.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with a text that says all.
    pub(crate) fn new(exit: Exit, problem: impl Display) -> Self {
        Self::Told { problem: problem.to_string(), remedy: None, exit }
    }

    /// A command line that is understood and makes no sense.
    pub(crate) fn usage(problem: impl Display) -> Self {
        Self::new(Exit::USAGE, problem)
    }

    /// Something on this machine doesn't work: `could not DOING: ERROR`.
    pub(crate) fn doing(doing: impl Display, error: impl Display) -> Self {
        Self::new(Exit::FAILURE, format!("could not {doing}: {error}"))
    }

    /// The failure with what to do about it.
    pub(crate) fn remedy(self, remedy: impl Display) -> Self {
        match self {
            Self::Told { problem, exit, .. } => Self::Told { problem, remedy: Some(remedy.to_string()), exit },
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    /// The same failure of a command whose exit code is a job's, when no job has given one.
    pub(crate) fn beside_a_jobs(self) -> Self {
        match self {
            Self::Told { problem, remedy, exit } => Self::Told { problem, remedy, exit: exit.beside_a_jobs() },
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    /// What a server, or the coordinator in this process, answered. `server` is where it was asked.
    pub(crate) fn api(error: &ApiError, server: Option<&str>) -> Self {
        let exit = match error.code {
            ErrorCode::BadRequest | ErrorCode::TooLarge => Exit::USAGE,
            ErrorCode::NotFound => Exit::NOT_FOUND,
            ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::TooMany => Exit::UNREACHABLE,
            ErrorCode::Unauthorized | ErrorCode::Forbidden => Exit::NOT_ALLOWED,
            _ => Exit::FAILURE,
        };
        let failure = Self::new(exit, &error.message);
        match (error.code, server) {
            (ErrorCode::Unavailable, Some(_)) => failure.remedy("--server-url or EXECUTR_SERVER_URL names the server"),
            (ErrorCode::Unauthorized, Some(_)) => failure
                .remedy("give a valid token with --token-file or EXECUTR_TOKEN; `executr token create` makes one"),
            (ErrorCode::Forbidden, Some(_)) => {
                failure.remedy("use a token with another role; `executr token create --help` lists them")
            }
            (ErrorCode::NotFound, Some(_)) if error.context.contains_key("run_id") => {
                failure.remedy("`executr runs` shows the runs there are, `executr runs --here` those of `executr run`")
            }
            (ErrorCode::NotFound, Some(_)) => failure
                .remedy("`executr list` shows the jobs there are; a run's id is for `executr runs [--cancel|-f] ID`"),
            (ErrorCode::TooMany, _) => failure.remedy("try again in a moment"),
            _ => failure,
        }
    }

    /// Tells the user, on standard error, and gives the exit code.
    pub(crate) fn report(self) -> Exit {
        match self {
            Self::OutputClosed => Exit::SUCCESS,
            Self::Told { problem, remedy, exit } => {
                let ink = Ink::for_stderr();
                let mut stderr = io::stderr().lock();
                // There is no further place to say that even this can't be said.
                drop(writeln!(stderr, "{} {problem}", ink.paint(Paint::Bad, "error:")));
                if let Some(remedy) = remedy {
                    drop(writeln!(stderr, "{} {remedy}", ink.paint(Paint::Note, " help:")));
                }
                exit
            }
        }
    }
}

/// Errors of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::doing("write to standard output", error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_has_its_exit_code_and_what_to_do() {
        for (code, exit, told) in [
            (ErrorCode::NotFound, Exit::NOT_FOUND, "executr list"),
            (ErrorCode::Unavailable, Exit::UNREACHABLE, "--server-url"),
            (ErrorCode::Unauthorized, Exit::NOT_ALLOWED, "token create"),
            (ErrorCode::BadRequest, Exit::USAGE, ""),
        ] {
            let failure = Failure::api(&ApiError::new(code, "that went wrong"), Some("http://h:1"));
            let Failure::Told { problem, remedy, exit: given } = failure else { panic!("nothing told") };
            assert_eq!((problem.as_str(), given), ("that went wrong", exit));
            assert!(remedy.unwrap_or_default().contains(told), "{code:?}");
        }
    }

    #[test]
    fn a_reader_who_left_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.report(), Exit::SUCCESS);
    }
}
