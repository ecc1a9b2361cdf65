//! How a run looks while it goes on: plain lines in one of three formats, or a live picture on a terminal.
//!
//! - [`Happening`]: what there is to show, one thing after another;
//! - [`Format`]: a happening as text, pure;
//! - [`Lines`]: all happenings, as lines;
//! - [`Live`]: what runs now, redrawn in place;
//! - [`summary()`]: how it ended;
//! - [`runs_table`], [`run_lines`]: runs afterwards.

mod format;
mod live;
mod partial;
mod summary;
mod table;

use std::io;
use std::path::PathBuf;

use executr_api::output::Stream;
use executr_api::{JobState, RunState, StepMark};
use executr_spec::RunId;

pub(crate) use format::{Format, FormatName};
pub(crate) use live::{Live, REDRAW};
pub(crate) use partial::PartialLines;
pub(crate) use summary::{Tail, summary};
pub(crate) use table::{run_lines, runs_table};

/// Something of a run that is shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Happening {
    /// The run goes on from here.
    RunStarted {
        /// Which.
        run: RunId,
        /// How many jobs it has.
        jobs: usize,
    },
    /// A job was handed out.
    JobStarted {
        /// Its name in the run.
        job: String,
        /// The attempt, from 1.
        attempt: u32,
    },
    /// Something happened to a step.
    Step {
        /// The job's name in the run.
        job: String,
        /// What.
        mark: StepMark,
    },
    /// A step wrote a line, or a piece of one that is too long or was its last. Without the line's end.
    Line {
        /// The job's name in the run.
        job: String,
        /// The step that runs, as its last mark says.
        step: Option<StepAt>,
        /// Where it was written.
        stream: Stream,
        /// What was written.
        text: Vec<u8>,
    },
    /// Output that wasn't kept.
    Gap {
        /// The job's name in the run.
        job: String,
        /// How many bytes.
        bytes: u64,
    },
    /// An attempt ended, and there will be another.
    JobRetrying {
        /// The job's name in the run.
        job: String,
        /// The attempt that ended.
        attempt: u32,
        /// Why.
        message: Option<String>,
    },
    /// A job is final.
    JobEnded {
        /// Its name in the run.
        job: String,
        /// How it stands.
        state: JobState,
        /// Of its last attempt.
        exit_code: Option<i32>,
        /// Why it failed, was cancelled or skipped.
        message: Option<String>,
    },
    /// The run was asked to stop.
    Cancelling {
        /// Why.
        reason: String,
    },
    /// The directory of an attempt that is over stays.
    DirectoryKept {
        /// The job's name in the run.
        job: String,
        /// The attempt, from 1.
        attempt: u32,
        /// Where it is.
        path: PathBuf,
    },
    /// The run is final.
    RunEnded {
        /// How it stands.
        state: RunState,
    },
}

/// Which try of which step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepAt {
    /// The step's name.
    pub(crate) name: String,
    /// The try, from 1.
    pub(crate) attempt: u32,
    /// How many there may be.
    pub(crate) max_attempts: u32,
}

impl From<&StepMark> for StepAt {
    fn from(mark: &StepMark) -> Self {
        Self { name: mark.step.clone(), attempt: mark.attempt, max_attempts: mark.max_attempts }
    }
}

/// Something that shows runs.
pub(crate) trait RunShow {
    /// Shows the next happening.
    ///
    /// # Errors
    /// When nobody can see it any more.
    fn show(&mut self, happening: &Happening) -> io::Result<()>;

    /// Draws anew what changes with time alone.
    fn tick(&mut self) {}

    /// Removes what isn't meant to stay.
    fn clear(&mut self) {}
}

/// All happenings as lines on standard output.
pub(crate) struct Lines {
    format: Format,
}

impl Lines {
    /// Lines of this format.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }
}

impl RunShow for Lines {
    fn show(&mut self, happening: &Happening) -> io::Result<()> {
        let mut line = Vec::new();
        self.format.write(happening, super::now(), &mut line);
        if line.is_empty() {
            return Ok(());
        }
        use io::Write as _;
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.flush()
    }
}
