//! Jobs on hosts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_spec::workflow::ModifiedFiles;
use executr_tree::{Changes, MadeTree, Packed};

use super::hosts::{Lent, SshHosts};
use super::options::SshOptions;
use crate::contract::{
    Consoles, Event, Execution, ExecutorError, FileToPut, Handover, JobPlan, LimitOffers, Offer, PutTo, Sandbox,
    StepPlan, TakeFrom, TreeAtHand, Workspace,
};

/// Places on the hosts of one executor.
pub struct SshWorkspace {
    hosts: Arc<SshHosts>,
    options: SshOptions,
    limits: LimitOffers,
}

impl SshWorkspace {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(hosts: Arc<SshHosts>, options: SshOptions) -> Self {
        // Each host has its own, and says so when a job comes to it.
        let limits = LimitOffers { memory: Ok(()), cpu: Ok(()), pids: Ok(()) };
        Self { hosts, options, limits }
    }
}

#[async_trait]
impl Workspace for SshWorkspace {
    fn limits(&self) -> &LimitOffers {
        &self.limits
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        // A connection that nobody has used for a while may turn out to be lost; and then each host may.
        let mut left = self.options.targets().len();
        loop {
            let lent = self.hosts.lend(&self.options).await?;
            match seen(&lent, lent.connection().place().setup_job(job.clone()).await) {
                Ok(sandbox) => {
                    let variables = lent.connection().variables().to_vec();
                    return Ok(Box::new(SshSandbox { sandbox, variables, lent: Some(lent) }));
                }
                Err(ExecutorError::Ssh(error)) if left > 0 && lent.connection().is_lost() => {
                    tracing::debug!(%error, "a connection to a host was lost, and nobody had noticed");
                    left -= 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Connections are the worker's: others may use them.
    async fn cleanup(&self) {}
}

/// Says of which host an error is, and sees to it that the next job goes elsewhere when it is lost to this one.
fn seen<T>(lent: &Lent, answer: Result<T, ExecutorError>) -> Result<T, ExecutorError> {
    answer.map_err(|error| match error {
        ExecutorError::Remote(error) => {
            let error = lent.connection().explain(&error);
            if lent.connection().is_lost() {
                lent.failed();
            }
            error.into()
        }
        other => other,
    })
}

/// One job's place on a host.
struct SshSandbox {
    sandbox: Box<dyn Sandbox>,
    variables: Vec<Bytes>,
    /// `None` after cleanup.
    lent: Option<Lent>,
}

impl SshSandbox {
    fn seen<T>(&self, answer: Result<T, ExecutorError>) -> Result<T, ExecutorError> {
        match &self.lent {
            Some(lent) => seen(lent, answer),
            None => answer,
        }
    }
}

#[async_trait]
impl Sandbox for SshSandbox {
    fn directory(&self) -> &Path {
        self.sandbox.directory()
    }

    /// Those of whoever logs in.
    fn variables(&self) -> Option<&[Bytes]> {
        Some(&self.variables)
    }

    async fn make_directory(&mut self) -> Result<(), ExecutorError> {
        let made = self.sandbox.make_directory().await;
        self.seen(made)
    }

    fn keep_directory(&mut self, target: &Path) {
        self.sandbox.keep_directory(target);
    }

    async fn put_tree(&mut self, tree: Arc<dyn TreeAtHand>, to: PutTo<'_>) -> Result<(), ExecutorError> {
        let put = self.sandbox.put_tree(tree, to).await;
        self.seen(put)
    }

    async fn put_files(&mut self, files: Vec<FileToPut>) -> Result<(), ExecutorError> {
        let put = self.sandbox.put_files(files).await;
        self.seen(put)
    }

    async fn take_tree(&mut self, from: TakeFrom<'_>, offer: Offer) -> Result<Option<MadeTree>, ExecutorError> {
        let taken = self.sandbox.take_tree(from, offer).await;
        self.seen(taken)
    }

    async fn note(&mut self) -> Result<(), ExecutorError> {
        let noted = self.sandbox.note().await;
        self.seen(noted)
    }

    async fn changes(&mut self) -> Result<Changes, ExecutorError> {
        let changes = self.sandbox.changes().await;
        self.seen(changes)
    }

    async fn begin_modified(&mut self) -> Result<(), ExecutorError> {
        let begun = self.sandbox.begin_modified().await;
        self.seen(begun)
    }

    async fn take_modified(&mut self, wanted: &ModifiedFiles, into: File) -> Result<Packed, ExecutorError> {
        let taken = self.sandbox.take_modified(wanted, into).await;
        self.seen(taken)
    }

    fn handover_path(&mut self, handover: Handover) -> PathBuf {
        self.sandbox.handover_path(handover)
    }

    async fn take_handover(&mut self, handover: Handover, limit: u64) -> Result<Option<Bytes>, ExecutorError> {
        let taken = self.sandbox.take_handover(handover, limit).await;
        self.seen(taken)
    }

    async fn execute(&mut self, step: StepPlan) -> Result<Box<dyn Execution + '_>, ExecutorError> {
        let Self { sandbox, lent, .. } = self;
        let lent = lent.as_ref();
        match sandbox.execute(step).await {
            Ok(execution) => Ok(Box::new(SshExecution { execution, lent })),
            Err(error) => match lent {
                Some(lent) => seen(lent, Err(error)),
                None => Err(error),
            },
        }
    }

    fn consoles(&self) -> Option<Arc<dyn Consoles>> {
        self.sandbox.consoles()
    }

    async fn cleanup(&mut self) -> Result<(), ExecutorError> {
        let Some(lent) = self.lent.take() else { return Ok(()) };
        // What is on a lost host goes when its agent notices.
        let cleaned = if lent.connection().is_lost() { Ok(()) } else { seen(&lent, self.sandbox.cleanup().await) };
        lent.end().await;
        cleaned
    }
}

/// A step on a host.
struct SshExecution<'sandbox> {
    execution: Box<dyn Execution + 'sandbox>,
    lent: Option<&'sandbox Lent>,
}

#[async_trait]
impl Execution for SshExecution<'_> {
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError> {
        let next = self.execution.next().await;
        match self.lent {
            Some(lent) => seen(lent, next),
            None => next,
        }
    }

    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError> {
        self.execution.end(grace).await
    }
}
