//! Free slots while a claim for them is under way.

use std::sync::Arc;

use executr_api::RunCancel;
use executr_store::Claimed;
use tokio::time::Instant;

use super::Session;
use super::held::{Held, Part};
use crate::runs::Contexts;

/// Free slots that a claim under way may fill. They count as filled until this is dropped.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(super) session: Arc<Session>,
    pub(super) count: u32,
}

impl Slots {
    /// How many.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The claim failed or may have been repeated: only the store knows what all it brought.
    pub(crate) fn distrust(&self) {
        self.session.distrust();
    }

    /// The claim brought these leases, and those of runs this besides.
    pub(crate) fn fill(self, leases: &[Claimed], mut contexts: Contexts) {
        if leases.is_empty() {
            return;
        }
        let mut state = self.session.state.hold();
        state.epoch += 1;
        let now = Instant::now();
        for lease in leases {
            let stopping = state.stopping.remove(&lease.fence.job);
            let part = contexts.remove(&lease.fence.job).map_or(Part::None, Part::Known);
            if let Part::Known(run) = &part
                && let Some(workspace) = &run.workspace
            {
                state.workspaces.hold(&workspace.id);
            }
            let mut held = Held::new(lease.spec.clone(), part, stopping.is_some(), now);
            held.at_once = stopping == Some(RunCancel::AtOnce);
            state.leases.insert(lease.fence, held);
        }
        if let Some(bell) = &state.bell {
            bell.ring();
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let mut state = self.session.state.hold();
        state.claiming = state.claiming.saturating_sub(self.count);
        if state.claiming == 0 {
            state.stopping.clear();
        }
    }
}
