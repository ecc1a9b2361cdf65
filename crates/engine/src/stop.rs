//! How a running attempt is told to end.

use std::time::Duration;

use tokio::sync::watch;

/// Why an attempt is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The coordinator asked for it: its result is still wanted.
    Cancelled,
    /// The lease is another worker's by now: nobody wants its result.
    LeaseLost,
    /// An exclusive job whose lease couldn't be renewed in time. It runs out, and the job is handed out again.
    NotRenewed,
    /// The worker has to go now. Its lease runs out, and the job is handed out again.
    ShutDown,
}

/// An order to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopOrder {
    pub(crate) reason: StopReason,
    /// How long processes may take to end by themselves.
    pub(crate) grace: Duration,
    /// Nothing more is to be started. Otherwise steps still run that are there for it.
    pub(crate) urgent: bool,
}

/// Ends an attempt. Dropped, it ends nothing.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Option<StopOrder>>);

/// The attempt's side.
#[derive(Debug)]
pub struct Stop {
    receiver: watch::Receiver<Option<StopOrder>>,
    deaf: bool,
}

impl Stopper {
    /// A stopper, and what to give to the attempt.
    #[must_use]
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), Stop { receiver, deaf: false })
    }

    /// Tells the attempt to end: SIGTERM, and SIGKILL after `grace`. A later order shortens the grace, and one with
    /// another reason after a cancellation makes it urgent. What was cancelled stays so, because its result is still
    /// wanted, and a lost lease stays lost.
    pub fn stop(&self, reason: StopReason, grace: Duration) {
        self.order(StopOrder { reason, grace, urgent: reason != StopReason::Cancelled });
    }

    /// Cancels the attempt without any delay: SIGKILL, and no step that is meant for a cancellation. Its result is still
    /// wanted, and its place is cleaned up.
    pub fn cancel_at_once(&self) {
        self.order(StopOrder { reason: StopReason::Cancelled, grace: Duration::ZERO, urgent: true });
    }

    fn order(&self, StopOrder { reason, grace, urgent }: StopOrder) {
        self.0.send_if_modified(|order| {
            let before = *order;
            *order = Some(match before {
                Some(first) => StopOrder {
                    reason: match (first.reason, reason) {
                        (StopReason::LeaseLost, _) => first.reason,
                        (StopReason::Cancelled, StopReason::NotRenewed | StopReason::ShutDown) => first.reason,
                        _ => reason,
                    },
                    grace: first.grace.min(grace),
                    urgent: first.urgent || urgent,
                },
                None => StopOrder { reason, grace, urgent },
            });
            *order != before
        });
    }
}

impl Stop {
    /// The order, if there is one.
    pub(crate) fn order(&self) -> Option<StopOrder> {
        *self.receiver.borrow()
    }

    /// Waits for an order that wasn't seen yet.
    pub(crate) async fn ordered(&mut self) -> StopOrder {
        loop {
            if self.deaf {
                return std::future::pending().await;
            }
            match self.receiver.changed().await {
                Ok(()) => {
                    if let Some(order) = *self.receiver.borrow_and_update() {
                        return order;
                    }
                }
                // Nobody is left to order anything.
                Err(_) => self.deaf = true,
            }
        }
    }
}
