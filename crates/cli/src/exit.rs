//! What the program's exit codes mean. `docs/cli.md` has the same table.

use std::process::ExitCode;

use executr_api::{JobStatus, JobView};

/// The exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// It did what it was asked to do.
    pub(crate) const SUCCESS: Self = Self(0);
    /// It did not, for a reason that has no code of its own; or a job that was waited for did not complete.
    pub(crate) const FAILURE: Self = Self(1);
    /// The command line, or the job, can't be understood or allowed as it is.
    pub(crate) const USAGE: Self = Self(2);
    /// There is no such job or token.
    pub(crate) const NOT_FOUND: Self = Self(3);
    /// The server, or its database, can't be reached.
    pub(crate) const UNREACHABLE: Self = Self(4);
    /// No token, or one that doesn't allow it.
    pub(crate) const NOT_ALLOWED: Self = Self(5);
    /// Of `run` and `submit --wait`, whose other codes are the job's: there is no job's code to give.
    pub(crate) const NO_RESULT: Self = Self(125);
    /// The job was cancelled: as if by Ctrl-C.
    pub(crate) const CANCELLED: Self = Self(130);
    /// The reader of the job's output is gone: as if the job had been told by SIGPIPE.
    pub(crate) const OUTPUT_CLOSED: Self = Self(141);

    /// How a command ends whose exit code is that of this job.
    pub(crate) fn of_job(job: &JobView) -> Self {
        match (job.status, job.exit_code) {
            (JobStatus::Completed, _) => Self::SUCCESS,
            (JobStatus::Cancelled, _) => Self::CANCELLED,
            // Whatever a failed job's program said, the job failed.
            (_, None | Some(0)) => Self::NO_RESULT,
            (_, Some(code)) => u8::try_from(code).map_or(Self::NO_RESULT, Self),
        }
    }

    /// How `exec` ends whose command ended so.
    pub(crate) fn of_command(code: i32) -> Self {
        u8::try_from(code).map_or(Self::NO_RESULT, Self)
    }

    /// As shells tell the end by a signal.
    pub(crate) fn of_signal(signal: i32) -> Self {
        Self::of_command(128 + signal)
    }

    /// The same for a command whose other exit codes are a job's: none of Executr's own stands in their way.
    pub(crate) fn beside_a_jobs(self) -> Self {
        match self {
            Self::SUCCESS | Self::USAGE => self,
            _ => Self::NO_RESULT,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}
