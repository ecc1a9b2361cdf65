//! Runs one step as `local` would.

use bytes::Bytes;
use executr_spec::JobId;
use tokio::time::timeout;

use super::{PATIENCE, Surroundings};
use crate::contract::{
    Event, Execution, Executor, ExecutorError, Exit, JobPlan, LimitOffers, Limits, Place, Program, StepPlan, Workspace,
};
use crate::local::LocalExecutor;

/// The limits that can be kept, once a step has run; else why none did.
pub(super) async fn probe(surroundings: &Surroundings) -> Result<LimitOffers, String> {
    let work_dir = surroundings.scratch.clone()?;
    let executor = LocalExecutor { work_dir, keeper: surroundings.keeper.clone() };
    let tried = async {
        let workspace = executor.setup_workspace().await.map_err(told)?;
        let ran = run(workspace.as_ref()).await;
        let offers = workspace.limits().clone();
        workspace.cleanup().await;
        ran.map(|()| offers)
    };
    timeout(PATIENCE, tried).await.unwrap_or_else(|_| Err(format!("it took more than {} s", PATIENCE.as_secs())))
}

async fn run(workspace: &dyn Workspace) -> Result<(), String> {
    let job = JobId("00000000-0000-0000-0000-000000000000".parse().map_err(|error| format!("{error}"))?);
    let plan = JobPlan { job, attempt: 1, place: Place::Sandbox, limits: Limits::default() };
    let mut sandbox = workspace.setup_job(plan).await.map_err(told)?;
    let program = Program::Script(Bytes::from_static(b"exit 0"));
    let step = StepPlan { program, env: Vec::new(), workdir: None, last: true };
    let ran = match sandbox.execute(step).await {
        Ok(mut execution) => end(execution.as_mut()).await,
        Err(error) => Err(told(error)),
    };
    let cleaned = sandbox.cleanup().await.map_err(told);
    ran.and(cleaned)
}

async fn end(execution: &mut dyn Execution) -> Result<(), String> {
    while let Some(event) = execution.next().await.map_err(told)? {
        match event {
            Event::StartFailed(failed) => return Err(failed.failure.message),
            Event::Ended(ended) if ended.exit == Exit::Code(0) => return Ok(()),
            Event::Ended(ended) => return Err(format!("/bin/sh ended with {:?}", ended.exit)),
            Event::Started { .. } | Event::InputTaken { .. } | Event::Output { .. } => {}
        }
    }
    Err("its end was not told".to_owned())
}

fn told(error: ExecutorError) -> String {
    error.to_string()
}
