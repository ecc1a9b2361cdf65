//! `executr run FILE`: a coordinator on a database of the run's own, and a worker, in this process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use executr_api::{ApiError, RunCancel, RunClient as _, RunSubmission, RunView};
use executr_coordinator::{Coordinator, TenantClient, Unobserved};
use executr_spec::{RunId, Tenant, Timestamp};
use executr_worker::{KeptDirectories, ShutdownHandle};

use super::{load, modified, picture, source};
use crate::arguments::{WorkflowArgs, WorkflowHereArgs};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{ConsoleSocket, KeptRun, KeptRuns, RunNote, Signals, open_run, rules_here, worker};
use crate::show::now;
use crate::show::run::{FormatName, RunShow};

/// Runs a workflow, or goes on with a run of it.
pub(in crate::commands) async fn run(
    file: &Path,
    chosen: &[String],
    workflow: &WorkflowArgs,
    here: &WorkflowHereArgs,
    env: &[(String, String)],
    data: &Path,
) -> Result<Exit> {
    let mut signals = Signals::listen().map_err(|error| Failure::doing("listen to signals", error))?;
    let kept = KeptRuns::of(data);
    if !workflow.dry_run {
        check_secrets(&workflow.secret)?;
    }
    if let Some(which) = here.resume {
        let (directory, note) = match which {
            Some(run) => kept.open(run)?,
            None => kept.open_dead(&load::absolute(file)?)?,
        };
        let Some(run) = which.or_else(|| note.dead().map(|run| run.id)) else {
            return Err(Failure::new(
                Exit::NOT_FOUND,
                "that process died before its run was recorded; nothing of it ran",
            )
            .remedy("start it again without --resume"));
        };
        return resume(run, data, directory, note, workflow, here, &mut signals).await;
    }
    let loaded = load::load(file, chosen, workflow, env)?;
    if workflow.dry_run {
        return load::show_dry_run(&loaded);
    }
    let note = RunNote {
        file: load::absolute(file)?,
        repository: loaded.repository.clone(),
        created_at: now(),
        coming_back: BTreeMap::new(),
        runs: Vec::new(),
    };
    let directory = kept.make(&note)?;
    let mut process = Process::start(data, directory, note, here, &loaded.options.secrets).await?;
    let plan = source::with_source(loaded, process.client(), data, false, &told).await?;
    process.note.coming_back = modified::of(&plan)?;
    let jobs = plan.jobs.len();
    let name = plan.name.clone();
    let view = process.client().submit_run(RunSubmission { plan, idempotency_key: None }).await.map_err(told)?;
    let show = picture::choose(workflow.format, &name, jobs);
    process.show(view, 0, show, workflow, &mut signals).await
}

/// A secret that isn't there is missed at once, not by the job that wants it.
fn check_secrets(names: &[String]) -> Result<()> {
    for name in names {
        let told = match std::env::var_os(name).map(OsString::into_string) {
            Some(Ok(_)) => continue,
            Some(Err(_)) => Failure::usage(format!("--secret {name}: the variable of that name isn't UTF-8 text"))
                .remedy("encode its value, as by base64, and let the job decode it"),
            None => Failure::usage(format!("--secret {name}: there is no variable of that name in your environment"))
                .remedy(format!("set it first, as in `{name}=… executr run …`")),
        };
        return Err(told);
    }
    Ok(())
}

async fn resume(
    run: RunId,
    data: &Path,
    directory: KeptRun,
    note: RunNote,
    workflow: &WorkflowArgs,
    here: &WorkflowHereArgs,
    signals: &mut Signals,
) -> Result<Exit> {
    let mut process = Process::start(data, directory, note, here, &workflow.secret).await?;
    let view = process.client().run(run).await.map_err(told)?;
    if view.state.is_final() {
        // Perhaps its process died before it could write that down.
        process.note(&view)?;
        return Err(Failure::new(Exit::NOT_FOUND, format!("run {run} is over: it is {}", view.state.as_str()))
            .remedy(format!("`executr rerun {run}` repeats it")));
    }
    let total = view.jobs.values().sum::<u64>();
    let done: u64 = view.jobs.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum();
    drop(writeln!(io::stderr(), "executr: going on with run {run}: {done} of {total} jobs are done"));
    if changed_since(&process.note) {
        drop(writeln!(
            io::stderr(),
            "executr: {} has changed since; the run goes on with what it was then",
            process.note.file.display()
        ));
    }
    let show = picture::choose(workflow.format, &view.name, usize::try_from(total).unwrap_or(usize::MAX));
    let after = view.last_event;
    process.show(view, after, show, workflow, signals).await
}

/// Whether a run's file was written to after the run was begun.
fn changed_since(note: &RunNote) -> bool {
    let written = std::fs::metadata(&note.file).and_then(|found| found.modified());
    let begun = UNIX_EPOCH + note.created_at.since(Timestamp(0));
    written.is_ok_and(|written| written > begun)
}

/// Repeats a run that was run here.
pub(in crate::commands) async fn rerun(
    run: RunId,
    scope: executr_api::RerunScope,
    format: Option<FormatName>,
    data: &Path,
) -> Result<Exit> {
    let mut signals = Signals::listen().map_err(|error| Failure::doing("listen to signals", error))?;
    let (directory, note) = KeptRuns::of(data).open(run)?;
    if let Some(dead) = note.dead() {
        // What opens its database goes on with it.
        return Err(Failure::usage(format!("run {} died with its process and isn't over", dead.id)).remedy(format!(
            "go on with it first: executr run {} --resume={}",
            note.file.display(),
            dead.id
        )));
    }
    let workflow = WorkflowArgs { format, ..WorkflowArgs::default() };
    let mut process = Process::start(data, directory, note, &WorkflowHereArgs::default(), &[]).await?;
    let view = process.client().rerun(run, scope).await.map_err(told)?;
    let jobs = usize::try_from(view.jobs.values().sum::<u64>()).unwrap_or(usize::MAX);
    let show = picture::choose(workflow.format, &view.name, jobs);
    process.show(view, 0, show, &workflow, &mut signals).await
}

/// So often at least it is looked whether a run has ended that nobody sees.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Everything that a run needs in this process.
pub(super) struct Process {
    data: PathBuf,
    directory: KeptRun,
    note: RunNote,
    coordinator: Coordinator,
    worker: Option<executr_worker::Worker>,
    kept: Option<KeptDirectories>,
}

impl Process {
    pub(super) fn client(&self) -> TenantClient {
        self.coordinator.client(Tenant::default())
    }

    pub(super) async fn start(
        data: &Path,
        directory: KeptRun,
        note: RunNote,
        here: &WorkflowHereArgs,
        secrets: &[String],
    ) -> Result<Self> {
        let start = async {
            let store = open_run(data, directory.path()).await?;
            Coordinator::start(store, rules_here(), Arc::new(Unobserved)).await.map_err(told)
        };
        let options = worker::workflow_options(data, directory.path(), &note.repository, here, secrets);
        let kept = options.kept.clone();
        let set_up = worker::set_up(options);
        // The keeper starts while the database is opened.
        let (coordinator, worker) = tokio::try_join!(start, set_up)?;
        Ok(Self { data: data.to_owned(), directory, note, coordinator, worker: Some(worker), kept })
    }

    /// Writes down how a run stands.
    fn note(&mut self, view: &RunView) -> Result<()> {
        if let Some(known) = self.note.runs.iter_mut().find(|known| known.id == view.id) {
            known.clone_from(view);
        }
        self.directory.write(&self.note)
    }

    /// Works and shows a picture until the run is over.
    async fn show(
        &mut self,
        view: RunView,
        after: u64,
        show: Box<dyn RunShow + Send>,
        workflow: &WorkflowArgs,
        signals: &mut Signals,
    ) -> Result<Exit> {
        let (client, run) = (self.client(), view.id);
        let quiet = workflow.format.is_some_and(|format| format != FormatName::Simple);
        let shown = picture::follow(&client, run, after, show, quiet, &told);
        let view = self.attend(view, shown, workflow.format, signals).await?;
        modified::bring_back(&client, run, &self.note.coming_back, &self.data).await?;
        Ok(picture::exit(view.state))
    }

    /// Works until the run is over, while `shown` shows it. The first signal cancels it, the second does so at once.
    pub(super) async fn attend<S>(
        &mut self,
        view: RunView,
        shown: impl Future<Output = Result<S>>,
        format: Option<FormatName>,
        signals: &mut Signals,
    ) -> Result<RunView> {
        let (client, run) = (self.client(), view.id);
        self.note.runs.retain(|known| known.id != run);
        self.note.runs.push(view);
        self.directory.write(&self.note)?;
        let Some(worker) = self.worker.take() else {
            return Err(Failure::doing("work on the run", "this process has a run already"));
        };
        let socket = ConsoleSocket::listen(self.directory.path(), &self.coordinator, run);
        let _socket = socket.inspect_err(|error| tracing::warn!(%error, "`executr exec` can't reach this run")).ok();
        let (handle, shutdown) = ShutdownHandle::new();
        let mut working = tokio::spawn(worker.run(Arc::new(self.coordinator.clone()), shutdown));
        let mut how = RunCancel::InOrder;
        let shown = {
            tokio::pin!(shown);
            loop {
                tokio::select! {
                    shown = &mut shown => break shown,
                    () = signals.next() => {
                        if let Err(error) = client.cancel_run(run, how).await {
                            break Err(told(error));
                        }
                        how = RunCancel::AtOnce;
                    }
                }
            }
        };
        if shown.is_err() {
            end_unseen(&client, run, how, signals).await;
        }
        // Workspaces are cleaned up before the worker goes.
        handle.drain();
        let mut asked = false;
        let worked = loop {
            tokio::select! {
                worked = &mut working => break worked,
                () = signals.next() => {
                    let cancelled = client.cancel_run(run, RunCancel::AtOnce).await;
                    if cancelled.is_ok_and(|view| !view.state.is_final()) {
                        continue;
                    }
                    if asked {
                        // Its keepers see it go, and end what they run.
                        working.abort();
                        continue;
                    }
                    asked = true;
                    handle.end_jobs();
                    drop(writeln!(
                        io::stderr(),
                        "executr: the run is over; its executors are being cleaned up. Ctrl-C once more ends that"
                    ));
                }
            }
        };
        // However the worker went, how the run stands is written down and the directories that stay are told first.
        let worked = match worked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(worker::failure(error)),
            Err(error) if error.is_cancelled() => {
                Err(Failure::new(Exit::CANCELLED, "cleaning up was ended before it was done")
                    .remedy("look for what the executors' `cleanup_workspace` would have removed"))
            }
            Err(error) => Err(Failure::doing("work on the run", error)),
        };
        let view = client.run(run).await.map_err(told)?;
        self.note(&view)?;
        if let Some(kept) = &self.kept {
            picture::show_kept(kept, format, &view.name)?;
        }
        worked?;
        shown?;
        Ok(view)
    }
}

/// Ends a run that nobody looks at any more, as by Ctrl-C. What it can't be asked to do is left to whoever goes on with it.
async fn end_unseen(client: &TenantClient, run: RunId, mut how: RunCancel, signals: &mut Signals) {
    loop {
        match client.cancel_run(run, how).await {
            Ok(view) if !view.state.is_final() => {}
            _ => return,
        }
        tokio::select! {
            view = client.wait_run(run, LOOK_EVERY) => match view {
                Ok(view) if !view.state.is_final() => {}
                _ => return,
            },
            () = signals.next() => how = RunCancel::AtOnce,
        }
    }
}

pub(super) fn told(error: ApiError) -> Failure {
    Failure::api(&error, None)
}
