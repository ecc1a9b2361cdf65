//! A coordinator in this process, and workers that end every job at once.

use std::collections::BTreeMap;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use executr_api::{
    AttemptResult, Client as _, Fence, Outcome, QueueWeight, Report, Version, WorkerApi as _, WorkerCounters,
    WorkerHello,
};
use executr_coordinator::{Coordinator, Options, Unobserved};
use executr_spec::{ExecutorKind, Offers, QueueName, Tenant, WorkerId};
use executr_store::Store;

use crate::http::argv;

/// Jobs in one submission, and the most that a worker takes at a time.
pub const BATCH: u32 = 1_000;
/// Enough that jobs are on their way while others are being committed, also when a commit takes long.
const WORKERS: u32 = 16;
const SUBMITTERS: u32 = 4;

/// No-op jobs a second, submission included, history kept.
///
/// # Errors
/// When the coordinator refuses something or jobs get lost.
pub fn no_op_jobs(store: &Arc<dyn Store>, jobs: u32) -> io::Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let options = Options::default();
        let coordinator =
            Coordinator::start(Arc::clone(store), options, Arc::new(Unobserved)).await.map_err(io::Error::other)?;
        let start = Instant::now();
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|number| {
                let client = coordinator.client(Tenant::default());
                let share = jobs / SUBMITTERS + u32::from(number < jobs % SUBMITTERS);
                tokio::spawn(async move {
                    for first in (0..share).step_by(BATCH as usize) {
                        let part = (first..share.min(first + BATCH)).map(|_| argv(&["true", "xxxxxxxxxx"])).collect();
                        client.submit_bulk(part).await?;
                    }
                    Ok(())
                })
            })
            .collect();
        let (done, mut counted) = tokio::sync::mpsc::unbounded_channel();
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let coordinator = coordinator.clone();
                let done = done.clone();
                tokio::spawn(async move {
                    let mut report = report(number);
                    let mut finished = vec![];
                    loop {
                        report.sequence += 1;
                        let orders = coordinator.exchange(Report { finished, ..report.clone() }).await?;
                        let taken = orders.verdicts.len();
                        finished = orders.leases.iter().map(|lease| succeeded(lease.fence)).collect();
                        if done.send(taken).is_err() {
                            return Ok::<(), executr_api::ApiError>(());
                        }
                    }
                })
            })
            .collect();
        drop(done);
        let mut ended = 0;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(300);
        while ended < jobs as usize {
            match tokio::time::timeout_at(deadline, counted.recv()).await {
                Ok(Some(taken)) => ended += taken,
                Ok(None) => return Err(io::Error::other("the workers stopped")),
                Err(_) => return Err(io::Error::other(format!("only {ended} of {jobs} jobs ended"))),
            }
        }
        let took = start.elapsed();
        for submitter in submitters {
            submitter
                .await
                .map_err(io::Error::other)?
                .map_err(|error: executr_api::ApiError| io::Error::other(error))?;
        }
        workers.iter().for_each(tokio::task::JoinHandle::abort);
        coordinator.shutdown().await;
        Ok(f64::from(jobs) / took.as_secs_f64())
    })
}

fn report(number: u32) -> Report {
    Report {
        worker: WorkerHello {
            id: WorkerId(format!("no-op-{number}")),
            name: "no-op".to_owned(),
            ip: None,
            version: Version::current(),
            slots: BATCH,
            queues: vec![QueueWeight { queue: QueueName::default(), weight: 1 }],
            offers: offers(),
        },
        sequence: 0,
        held: vec![],
        finished: vec![],
        returned: vec![],
        cleaned: Vec::new(),
        draining: false,
        wait_ms: 5_000,
        counters: WorkerCounters::default(),
    }
}

/// What a worker offers that runs local jobs and nothing special.
#[must_use]
pub fn offers() -> Offers {
    Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() }
}

/// The result of a job that did nothing.
#[must_use]
pub fn succeeded(fence: Fence) -> AttemptResult {
    AttemptResult {
        fence,
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        error_message: None,
        retryable: true,
        fails_run: false,
        usage: None,
        steps: vec![],
        output: None,
        output_bytes: 0,
        duration_us: 1,
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    }
}
