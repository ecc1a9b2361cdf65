//! Room for one job: runs one attempt after another.

use std::collections::BTreeMap;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use executr_api::{AttemptResult, Lease, Outcome};
use executr_engine::{Engine, FinishedAttempt, Stop};
use futures_util::FutureExt;
use tokio::sync::mpsc;

/// An attempt to run.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) lease: Lease,
    pub(crate) stop: Stop,
}

/// An attempt that ended in a slot.
#[derive(Debug)]
pub(crate) struct SlotReport {
    pub(crate) slot: usize,
    pub(crate) finished: FinishedAttempt,
    /// The job's own token, with which a tail is appended.
    pub(crate) token: String,
}

/// Starts a slot; it ends when the sender of its assignments is dropped.
pub(crate) fn start(
    slot: usize,
    engine: Arc<Engine>,
    reports: mpsc::UnboundedSender<SlotReport>,
) -> mpsc::UnboundedSender<Assignment> {
    let (assign, mut assignments) = mpsc::unbounded_channel::<Assignment>();
    tokio::spawn(async move {
        while let Some(Assignment { lease, mut stop }) = assignments.recv().await {
            let running = AssertUnwindSafe(engine.run(&lease, &mut stop)).catch_unwind();
            let finished = running.await.unwrap_or_else(|_| panicked(&lease));
            if reports.send(SlotReport { slot, finished, token: lease.token }).is_err() {
                break;
            }
        }
    });
    assign
}

fn panicked(lease: &Lease) -> FinishedAttempt {
    let result = AttemptResult {
        fence: lease.fence,
        outcome: Outcome::Failed,
        exit_code: None,
        error_message: Some("the worker failed while it ran the job: a fault of executr; its log says more".to_owned()),
        retryable: true,
        fails_run: false,
        usage: None,
        steps: Vec::new(),
        output: None,
        output_bytes: 0,
        duration_us: 0,
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    };
    FinishedAttempt { result, tail: None, stopped: None }
}
