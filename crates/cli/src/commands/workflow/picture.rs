//! How a run is shown, and what is said when it is over.

use std::io::{self, IsTerminal as _, Write as _};

use executr_api::{ApiError, RunClient, RunState, RunView};
use executr_spec::RunId;
use executr_worker::{KeptDirectories, KeptDirectory};

use super::watch::{Seen, WatchEnd, jobs, watch};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::run::{Format, FormatName, Happening, Lines, Live, RunShow, summary};
use crate::show::{Ink, now, terminal_width};

/// What shows a run: lines when they are asked for, when nobody sees a terminal, and for a single job, whose output
/// is then worth more than a picture of it.
pub(super) fn choose(format: Option<FormatName>, name: &str, jobs: usize) -> Box<dyn RunShow + Send> {
    let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
    match format {
        None if terminal && jobs > 1 => Box::new(Live::new(name, Ink::for_stderr())),
        format => Box::new(Lines::new(Format::new(format.unwrap_or(FormatName::Simple), name))),
    }
}

/// Shows a run to its end and says how it ended.
pub(super) async fn follow(
    client: &dyn RunClient,
    run: RunId,
    after: u64,
    mut show: Box<dyn RunShow + Send>,
    quiet: bool,
    told: &dyn Fn(ApiError) -> Failure,
) -> Result<RunView> {
    let mut seen = Seen::default();
    let end = watch(client, run, after, show.as_mut(), &mut seen).await;
    show.clear();
    match end {
        WatchEnd::Final => {}
        WatchEnd::Api(error) => return Err(told(error)),
        WatchEnd::Unseen(error) => return Err(error.into()),
    }
    let view = client.run(run).await.map_err(told)?;
    if !quiet {
        let jobs = jobs(client, run).await.map_err(told)?;
        let mut out = io::stderr().lock();
        let width = out.is_terminal().then(terminal_width).flatten();
        drop(summary(&view, &jobs, &seen.tails, Ink::for_stderr(), width, &mut out).and_then(|()| out.flush()));
    }
    Ok(view)
}

/// Says where the directories of jobs are that stay: with the other lines for programs, else beside them.
///
/// # Errors
/// When nobody reads the lines.
pub(super) fn show_kept(kept: &KeptDirectories, format: Option<FormatName>, name: &str) -> Result<()> {
    let directories = kept.list();
    let format = Format::new(format.unwrap_or(FormatName::Simple), name);
    let mut lines = Vec::new();
    for KeptDirectory { job, attempt, path } in directories {
        format.write(&Happening::DirectoryKept { job, attempt, path }, now(), &mut lines);
    }
    if format != Format::Simple {
        io::stdout().lock().write_all(&lines)?;
        return Ok(());
    }
    let mut err = io::stderr().lock();
    drop(err.write_all(&lines));
    if lines.is_empty() {
        drop(writeln!(err, "no job had a directory of its own to keep"));
    } else {
        drop(writeln!(err, "they go with the run, or by: rm -r {}", kept.root().display()));
    }
    Ok(())
}

/// How a command ends whose exit code is that of a run.
pub(super) fn exit(state: RunState) -> Exit {
    match state {
        RunState::Completed => Exit::SUCCESS,
        RunState::Cancelled => Exit::CANCELLED,
        RunState::Failed | RunState::Running | RunState::Cancelling => Exit::FAILURE,
    }
}
