//! A step that runs where an agent is.

use std::time::Duration;

use async_trait::async_trait;
use executr_agent_protocol::driver::AgentTask;

use super::sandbox::Directory;
use crate::contract::{Event, Execution, ExecutorError, StartPhase};

/// A task of an agent.
pub(super) struct RemoteExecution<'sandbox> {
    pub(super) task: AgentTask,
    pub(super) creates: bool,
    pub(super) directory: &'sandbox mut Directory,
}

#[async_trait]
impl Execution for RemoteExecution<'_> {
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError> {
        let event = self.task.next().await?;
        if let Some(Event::StartFailed(failed)) = &event
            && self.creates
            && matches!(failed.phase, StartPhase::Request | StartPhase::Directory)
        {
            // It was never made.
            *self.directory = Directory::Wanted;
        }
        Ok(event)
    }

    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError> {
        self.task.end(grace);
        Ok(())
    }
}
