//! One job's place behind an argv.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_spec::workflow::ModifiedFiles;
use executr_tree::{Changes, MadeTree, Packed};

use super::error::CommandError;
use super::process::Process;
use crate::contract::{
    Act, Event, Execution, ExecutorError, FileToPut, Handover, Offer, PutTo, Sandbox, StepPlan, TakeFrom, TreeAtHand,
    Workspace,
};

/// How long a stream's end may go before that of the argv, which explains it.
const EXPLAINED: Duration = Duration::from_secs(2);
/// How long the stream may stay open once the agent was let go.
const CLOSING: Duration = Duration::from_secs(2);

/// A directory of this machine, a keeper elsewhere, and what leads there.
pub(super) struct CommandSandbox {
    place: Box<dyn Sandbox>,
    workspace: Box<dyn Workspace>,
    /// `None` after cleanup.
    process: Option<Process>,
    program: String,
    /// The agent is lost, and there will be no other.
    lost: bool,
}

impl CommandSandbox {
    pub(super) fn new(
        place: Box<dyn Sandbox>,
        workspace: Box<dyn Workspace>,
        process: Process,
        program: String,
    ) -> Self {
        Self { place, workspace, process: Some(process), program, lost: false }
    }
}

/// Says why an agent is gone.
async fn explained(error: ExecutorError, process: Option<&Process>, program: &str, lost: &mut bool) -> ExecutorError {
    let (ExecutorError::Agent(_) | ExecutorError::Remote(_), Some(process)) = (&error, process) else { return error };
    *lost = true;
    match tokio::time::timeout(EXPLAINED, process.ended()).await {
        Ok(account) => CommandError::Lost { program: program.to_owned(), account }.into(),
        Err(_) => error,
    }
}

#[async_trait]
impl Sandbox for CommandSandbox {
    fn directory(&self) -> &Path {
        self.place.directory()
    }

    fn variables(&self) -> Option<&[Bytes]> {
        self.place.variables()
    }

    async fn make_directory(&mut self) -> Result<(), ExecutorError> {
        self.place.make_directory().await
    }

    fn keep_directory(&mut self, target: &Path) {
        self.place.keep_directory(target);
    }

    async fn put_tree(&mut self, tree: Arc<dyn TreeAtHand>, to: PutTo<'_>) -> Result<(), ExecutorError> {
        self.place.put_tree(tree, to).await
    }

    async fn put_files(&mut self, files: Vec<FileToPut>) -> Result<(), ExecutorError> {
        self.place.put_files(files).await
    }

    async fn take_tree(&mut self, from: TakeFrom<'_>, offer: Offer) -> Result<Option<MadeTree>, ExecutorError> {
        self.place.take_tree(from, offer).await
    }

    async fn note(&mut self) -> Result<(), ExecutorError> {
        self.place.note().await
    }

    async fn changes(&mut self) -> Result<Changes, ExecutorError> {
        self.place.changes().await
    }

    async fn begin_modified(&mut self) -> Result<(), ExecutorError> {
        self.place.begin_modified().await
    }

    async fn take_modified(&mut self, wanted: &ModifiedFiles, into: File) -> Result<Packed, ExecutorError> {
        self.place.take_modified(wanted, into).await
    }

    fn handover_path(&mut self, handover: Handover) -> PathBuf {
        self.place.handover_path(handover)
    }

    async fn take_handover(&mut self, handover: Handover, limit: u64) -> Result<Option<Bytes>, ExecutorError> {
        self.place.take_handover(handover, limit).await
    }

    async fn act(&mut self, act: Act<'_>, env: &[Bytes]) -> Result<Option<Box<dyn Execution + '_>>, ExecutorError> {
        self.place.act(act, env).await
    }

    async fn execute(&mut self, step: StepPlan) -> Result<Box<dyn Execution + '_>, ExecutorError> {
        let Self { place, process, program, lost, .. } = self;
        let process = process.as_ref();
        match place.execute(step).await {
            Ok(execution) => Ok(Box::new(CommandExecution { execution, process, program, lost })),
            Err(error) => Err(explained(error, process, program, lost).await),
        }
    }

    async fn cleanup(&mut self) -> Result<(), ExecutorError> {
        let Some(process) = self.process.take() else { return Ok(()) };
        if self.lost {
            process.kill();
            process.ended().await;
        }
        // What stays of it goes with the directory it is in.
        if let Err(error) = self.place.cleanup().await {
            tracing::debug!(%error, "a job's directory is removed from outside");
        }
        // Its end of the stream may stay open in others that had it.
        if !self.lost && tokio::time::timeout(CLOSING, self.workspace.cleanup()).await.is_err() {
            tracing::debug!("an executor's argv keeps its agent's stream open");
        }
        process.finish().await
    }
}

/// A step behind an argv.
struct CommandExecution<'sandbox> {
    execution: Box<dyn Execution + 'sandbox>,
    process: Option<&'sandbox Process>,
    program: &'sandbox str,
    lost: &'sandbox mut bool,
}

#[async_trait]
impl Execution for CommandExecution<'_> {
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError> {
        match self.execution.next().await {
            Ok(event) => Ok(event),
            Err(error) => Err(explained(error, self.process, self.program, self.lost).await),
        }
    }

    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError> {
        match self.execution.end(grace).await {
            Ok(()) => Ok(()),
            Err(error) => Err(explained(error, self.process, self.program, self.lost).await),
        }
    }
}
