//! Tries what a container without a daemon takes.

use tokio::time::timeout;

use super::{PATIENCE, Surroundings};
use crate::doctor::facts::{Direct, NoDirect};
use crate::oci::direct::{look, others};

pub(super) async fn probe(surroundings: &Surroundings) -> Option<Direct> {
    let options = surroundings.direct.clone()?;
    let late = || NoDirect::Failed(format!("it took more than {} s", PATIENCE.as_secs()));
    let runtime = match &surroundings.agent {
        Ok(agent) => match timeout(PATIENCE, look(options, agent.clone())).await {
            Ok(Ok(Some(runtime))) => Ok(runtime.program),
            Ok(Ok(None)) => Err(NoDirect::NoRuntime),
            Ok(Err(problem)) => Err(NoDirect::Failed(problem)),
            Err(_) => Err(late()),
        },
        Err(problem) => Err(NoDirect::Failed(problem.clone())),
    };
    Some(Direct { runtime, others: others() })
}
