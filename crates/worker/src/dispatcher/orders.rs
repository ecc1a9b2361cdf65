//! What is done on the coordinator's word.

use std::time::Duration;

use executr_api::{Fence, Orders, Verdict};
use tokio::time::Instant;

use super::Dispatcher;
use super::exchanges::Answered;
use crate::worker::WorkerError;

impl Dispatcher {
    pub(super) fn answered(&mut self, answered: Answered, held: &[Fence]) -> Result<(), WorkerError> {
        let Answered { brought, answer, sent_at, superseded } = answered;
        let orders = match answer {
            Ok(orders) => orders,
            // The newer one says how things stand.
            Err(_) if superseded && !brought.is_news => return Ok(()),
            Err(error) => return self.exchange_failed(error, brought),
        };
        self.heard();
        self.outbox.report_was_taken(brought.suspect);
        self.leases.renewed(held, sent_at);
        self.drain_told |= brought.draining;
        self.cleaning.was_told(&brought.cleaned);
        let verdicts = orders.verdicts.len();
        self.obey(orders);
        // What got no verdict is told again; not at once, should the coordinator never give one.
        let unanswered: Vec<Fence> = brought.results.into_iter().filter(|fence| self.outbox.contains(fence)).collect();
        if !unanswered.is_empty() {
            tracing::debug!(unanswered = unanswered.len(), verdicts, "results without a verdict are told again");
            self.outbox.report_again(&unanswered);
            if !superseded {
                self.retry_at = Some(Instant::now() + self.delay.next_delay());
            }
        }
        Ok(())
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        self.accepted = true;
        if self.deaf {
            self.deaf = false;
            tracing::info!("the server can be reached again");
        }
        self.delay.reset();
    }

    fn obey(&mut self, orders: Orders) {
        if orders.lease_ms > 0 {
            self.lease = Duration::from_millis(orders.lease_ms);
        }
        for verdict in &orders.verdicts {
            if verdict.verdict == Verdict::LeaseLost {
                tracing::info!(job = %verdict.fence.job, "a result came too late: another worker has the job");
            }
            self.outbox.remove(&verdict.fence);
        }
        for fence in &orders.cancels {
            self.leases.cancel(fence, self.options.kill_grace);
        }
        for fence in &orders.at_once {
            self.leases.cancel_at_once(fence);
        }
        for fence in &orders.releases {
            tracing::info!(job = %fence.job, "a lease was lost");
            self.leases.release(fence);
            self.outbox.remove(fence);
        }
        for workspace in orders.workspaces {
            self.cleaning.begin(&self.engine, workspace);
        }
        if orders.drain {
            self.drain("the server asks for it");
        }
        for lease in orders.leases {
            self.start(lease);
        }
        for console in orders.consoles {
            self.engine.consoles.serve(&self.engine.api, console);
        }
    }
}
