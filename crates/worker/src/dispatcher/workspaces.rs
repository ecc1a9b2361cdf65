//! Workspaces whose runs need them no more: cleaned up beside everything else, then told until the coordinator has heard.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use executr_api::WorkspaceId;
use executr_engine::Engine;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// Where a workspace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its last hook runs, or waits for jobs to leave it.
    UnderWay,
    /// To be reported.
    Clean,
    /// Stands in an exchange that is open.
    Reported,
}

/// Workspaces being cleaned up.
#[derive(Default)]
pub(super) struct Cleaning {
    states: BTreeMap<WorkspaceId, State>,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = WorkspaceId> + Send>>>,
}

impl Cleaning {
    /// Cleans one up, unless that was begun already.
    pub(super) fn begin(&mut self, engine: &Arc<Engine>, id: WorkspaceId) {
        if self.states.contains_key(&id) {
            return;
        }
        self.states.insert(id.clone(), State::UnderWay);
        let engine = Arc::clone(engine);
        self.under_way.push(Box::pin(async move {
            engine.workspaces.clean(&id).await;
            engine.providers.forget(id.run);
            id
        }));
    }

    /// Waits until one is clean; for ever while there is none.
    pub(super) async fn next(&mut self) {
        match self.under_way.next().await {
            Some(id) => {
                self.states.insert(id, State::Clean);
            }
            None => std::future::pending().await,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether there is something to report.
    pub(super) fn has_news(&self) -> bool {
        self.states.values().any(|state| *state == State::Clean)
    }

    /// Those to report now.
    pub(super) fn report(&mut self) -> Vec<WorkspaceId> {
        let mut reported = Vec::new();
        for (id, state) in self.states.iter_mut().filter(|(_, state)| **state == State::Clean) {
            *state = State::Reported;
            reported.push(id.clone());
        }
        reported
    }

    /// Nobody knows whether these were heard.
    pub(super) fn report_again(&mut self, ids: &[WorkspaceId]) {
        for id in ids {
            self.states.insert(id.clone(), State::Clean);
        }
    }

    /// The coordinator has heard of these.
    pub(super) fn was_told(&mut self, ids: &[WorkspaceId]) {
        for id in ids {
            self.states.remove(id);
        }
    }
}
