//! Other coordinators on the same database: what they tell, and the slow look behind it in case they couldn't.

use std::sync::Arc;
use std::time::Duration;

use executr_spec::QueueName;
use executr_store::Signal;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use crate::core::Core;

/// How often the store is asked what is ready in queues that somebody waits or asks for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Listens until the store goes.
pub(crate) async fn listen(core: Arc<Core>, mut signals: Receiver<Signal>) {
    loop {
        match signals.recv().await {
            Ok(Signal::Ready(queue, class)) => core.ready.set(&queue, &class, 1),
            Ok(Signal::Cancelling(job, worker, how)) => {
                if let Some(session) = core.sessions.get(&worker) {
                    session.cancelling(job, how);
                }
            }
            Ok(Signal::Changed(job)) => core.watches.changed(job),
            Ok(Signal::Output(job)) => core.watches.output(job),
            Ok(Signal::Run(run)) => {
                core.run_watches.changed(run);
                // It may be over, and its workspaces with it.
                for session in core.sessions.all() {
                    session.doubt_workspaces(Some(run));
                }
            }
            Ok(Signal::Anything) | Err(RecvError::Lagged(_)) => {
                core.watches.all();
                core.run_watches.all();
                for session in core.sessions.all() {
                    session.doubt_workspaces(None);
                }
                look(&core, core.ready.tracked()).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Looks now and then, so that a signal that got lost costs a few seconds and no more.
pub(crate) async fn look_now_and_then(core: Arc<Core>) {
    loop {
        sleep(LOOK_EVERY).await;
        look(&core, core.ready.asked_for()).await;
    }
}

async fn look(core: &Core, queues: Vec<QueueName>) {
    for queue in queues {
        match core.store.classes(&queue).await {
            Ok(classes) => {
                for (class, _) in classes.iter().filter(|(_, ready)| *ready) {
                    core.ready.set(&queue, class, 1);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not look what is ready; trying again");
                return;
            }
        }
    }
}
