//! The leases a worker holds, and those it lately had.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use executr_api::Fence;
use executr_engine::{StopReason, Stopper};
use executr_spec::LeaseId;
use tokio::time::Instant;

/// How many leases are remembered after their end. The coordinator sends a lease again only until it has heard that it
/// arrived: within a few exchanges.
const REMEMBERED: usize = 4_096;

/// An attempt that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) fence: Fence,
    stopper: Stopper,
    /// Whether it ends by itself when its lease isn't renewed.
    exclusive: bool,
    renewed: Instant,
    /// The lease is somebody else's: it isn't ours to renew.
    released: bool,
    /// It was told to end for want of renewal.
    expired: bool,
}

/// The leases of attempts that run, and the ids of those that ran.
#[derive(Debug, Default)]
pub(super) struct Leases {
    running: HashMap<LeaseId, Running>,
    known: HashSet<LeaseId>,
    order: VecDeque<LeaseId>,
}

impl Leases {
    /// Whether this lease came before.
    pub(super) fn is_known(&self, fence: &Fence) -> bool {
        self.known.contains(&fence.lease)
    }

    /// Remembers that it came.
    pub(super) fn remember(&mut self, fence: &Fence) {
        if self.known.insert(fence.lease) {
            self.order.push_back(fence.lease);
        }
        while self.order.len() > REMEMBERED + self.running.len() {
            match self.order.pop_front() {
                // A long job's lease stays known as long as it runs.
                Some(oldest) if self.running.contains_key(&oldest) => self.order.push_back(oldest),
                Some(oldest) => {
                    self.known.remove(&oldest);
                }
                None => break,
            }
        }
    }

    pub(super) fn start(&mut self, fence: Fence, stopper: Stopper, exclusive: bool, now: Instant) {
        self.remember(&fence);
        let running = Running { fence, stopper, exclusive, renewed: now, released: false, expired: false };
        self.running.insert(fence.lease, running);
    }

    /// An attempt ended; whether its result is still wanted.
    pub(super) fn end(&mut self, fence: &Fence) -> bool {
        self.running.remove(&fence.lease).is_some_and(|running| !running.released)
    }

    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    /// Those to renew.
    pub(super) fn held(&self) -> impl Iterator<Item = Fence> {
        self.running.values().filter(|running| !running.released).map(|running| running.fence)
    }

    /// The coordinator has renewed these.
    pub(super) fn renewed(&mut self, fences: &[Fence], at: Instant) {
        for fence in fences {
            if let Some(running) = self.running.get_mut(&fence.lease) {
                running.renewed = running.renewed.max(at);
            }
        }
    }

    pub(super) fn cancel(&mut self, fence: &Fence, grace: Duration) {
        if let Some(running) = self.running.get(&fence.lease) {
            running.stopper.stop(StopReason::Cancelled, grace);
        }
    }

    pub(super) fn cancel_at_once(&mut self, fence: &Fence) {
        if let Some(running) = self.running.get(&fence.lease) {
            running.stopper.cancel_at_once();
        }
    }

    /// The lease is somebody else's: its job is ended at once, because the other one runs it.
    pub(super) fn release(&mut self, fence: &Fence) {
        if let Some(running) = self.running.get_mut(&fence.lease) {
            running.released = true;
            running.stopper.stop(StopReason::LeaseLost, Duration::ZERO);
        }
    }

    pub(super) fn end_all(&mut self) {
        for running in self.running.values() {
            running.stopper.stop(StopReason::ShutDown, Duration::ZERO);
        }
    }

    /// When the next exclusive job is to be ended for want of renewal.
    pub(super) fn next_expiry(&self, after: Duration) -> Option<Instant> {
        let waiting = self.running.values().filter(|running| running.exclusive && !running.expired);
        waiting.map(|running| running.renewed + after).min()
    }

    /// Ends exclusive jobs whose lease wasn't renewed for `after`.
    pub(super) fn expire(&mut self, after: Duration, grace: Duration, now: Instant) {
        for running in self.running.values_mut() {
            if running.exclusive && !running.expired && running.renewed + after <= now {
                tracing::warn!(job = %running.fence.job, "an exclusive job is ended: its lease wasn't renewed in time");
                running.expired = true;
                running.stopper.stop(StopReason::NotRenewed, grace);
            }
        }
    }
}
