//! What one claim costs, with few and with a million jobs waiting, in the cases that tempt a queue to scan.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use executr_spec::{JobId, JobSpec, SpecJson, Step, StepCommand, Tenant, WorkerId};
use executr_store::{Claim, Finish, NewJob, Store};

use super::Settings;
use crate::in_process::{offers, succeeded};
use crate::report::{Row, Target, percentile};
use crate::stores::{Kind, Opened};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
const CLAIMS: usize = 3_000;
/// So few claims are worth a percentile.
const ENOUGH: usize = 500;
const CLASSES: usize = 500;
const TENANTS: usize = 10_000;
/// As the coordinator's retention does it.
const CLEANUP_BATCH: u32 = 1_000;

/// How the waiting jobs differ from one another.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// Not at all.
    Alike,
    /// All but every 500th ask for labels that the worker lacks.
    OutOfReach,
    /// All have one concurrency key.
    OneKey,
    /// They belong to 10,000 tenants.
    Tenants,
}

const CASES: [(Waiting, &str); 4] = [
    (Waiting::Alike, "alike"),
    (Waiting::OutOfReach, "almost none for this worker"),
    (Waiting::OneKey, "one concurrency key"),
    (Waiting::Tenants, "10,000 tenants"),
];

/// [`of_store`] for the embedded store.
///
/// # Errors
/// When it fails.
pub fn embedded(_settings: &Settings) -> io::Result<Vec<Row>> {
    of_store(Kind::Embedded)
}

/// [`of_store`] for PostgreSQL.
///
/// # Errors
/// When it fails.
pub fn postgres(_settings: &Settings) -> io::Result<Vec<Row>> {
    of_store(Kind::Postgres)
}

/// Microseconds of the 99th percentile of claims with a million waiting, beside that with a thousand.
fn of_store(kind: Kind) -> io::Result<Vec<Row>> {
    let runtime = runtime()?;
    let mut rows = vec![];
    for (waiting, name) in CASES {
        let mut p99 = vec![];
        for count in [FEW, MANY] {
            let Some(opened) = runtime.block_on(kind.open())? else { return Ok(rows) };
            p99.push(runtime.block_on(claims_p99(&opened, waiting, count))?);
            runtime.block_on(async { drop(opened) });
        }
        if let [few, many] = p99[..] {
            rows.push(Row {
                measure: format!("p99 claim, {MANY} waiting, {name}, {}", kind.name()),
                ours: many,
                against: format!("{FEW} waiting"),
                other: few,
                unit: "µs",
                target: Target::AtMost(1.3),
            });
        }
    }
    Ok(rows)
}

/// The same while a million finished jobs are deleted, beside idle, on both stores.
///
/// # Errors
/// When a store fails.
pub fn deletion(_settings: &Settings) -> io::Result<Vec<Row>> {
    let runtime = runtime()?;
    let mut rows = vec![];
    for kind in Kind::ALL {
        let Some(opened) = runtime.block_on(kind.open())? else { continue };
        let (idle, deleting) = runtime.block_on(while_deleting(&opened))?;
        rows.push(Row {
            measure: format!("p99 claim while {MANY} finished jobs go, {}", kind.name()),
            ours: deleting,
            against: "idle".to_owned(),
            other: idle,
            unit: "µs",
            target: Target::AtMost(2.0),
        });
    }
    Ok(rows)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

async fn claims_p99(opened: &Opened, waiting: Waiting, count: usize) -> io::Result<f64> {
    let store = &opened.store;
    fill(store, waiting, count).await?;
    claim_p99(store, waiting, Some(count), || true).await
}

/// Claims one job at a time, ends it, and replaces it, so that as many wait for the last claim as for the first; as long as
/// `go_on` says so.
async fn claim_p99(
    store: &Arc<dyn Store>,
    waiting: Waiting,
    replace_from: Option<usize>,
    go_on: impl Fn() -> bool,
) -> io::Result<f64> {
    let claim = claim(1);
    let mut took = Vec::with_capacity(CLAIMS);
    for number in 0..CLAIMS {
        if !go_on() {
            break;
        }
        let start = Instant::now();
        let answer = store.claim(vec![claim.clone()]).await.map_err(io::Error::other)?;
        took.push(start.elapsed().as_secs_f64() * 1e6);
        let Some(lease) = answer.into_iter().flat_map(|answer| answer.leases).next() else {
            return Err(io::Error::other(format!("claim {number} got nothing")));
        };
        store.finish(vec![Finish { result: succeeded(lease.fence) }]).await.map_err(io::Error::other)?;
        if let Some(first) = replace_from {
            // In reach of this worker, whatever the case.
            let next = (first + number).next_multiple_of(CLASSES);
            store.submit(vec![job(waiting, next)]).await.map_err(io::Error::other)?;
        }
    }
    if took.len() < ENOUGH {
        return Err(io::Error::other(format!("only {} claims could be measured", took.len())));
    }
    Ok(percentile(&took, 0.99))
}

async fn while_deleting(opened: &Opened) -> io::Result<(f64, f64)> {
    let store = &opened.store;
    fill(store, Waiting::Alike, MANY).await?;
    finish_all(store).await?;
    fill(store, Waiting::Alike, 2 * CLAIMS + FEW).await?;
    let idle = claim_p99(store, Waiting::Alike, None, || true).await?;
    let before = store.now().await.map_err(io::Error::other)?.plus(Duration::from_secs(1));
    let deleting = Arc::clone(store);
    let deletion = tokio::spawn(async move {
        let mut gone = 0;
        while gone < MANY as u64 {
            match deleting.delete_final(before, CLEANUP_BATCH).await {
                Ok(0) => break,
                Ok(count) => gone += count,
                Err(error) => return Err(io::Error::other(error)),
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    let p99 = claim_p99(store, Waiting::Alike, None, || !deletion.is_finished()).await?;
    deletion.abort();
    Ok((idle, p99))
}

async fn finish_all(store: &Arc<dyn Store>) -> io::Result<()> {
    let claim = claim(1_000);
    loop {
        let answer = store.claim(vec![claim.clone()]).await.map_err(io::Error::other)?;
        let ends: Vec<Finish> = answer
            .into_iter()
            .flat_map(|answer| answer.leases)
            .map(|lease| Finish { result: succeeded(lease.fence) })
            .collect();
        if ends.is_empty() {
            return Ok(());
        }
        store.finish(ends).await.map_err(io::Error::other)?;
    }
}

async fn fill(store: &Arc<dyn Store>, waiting: Waiting, count: usize) -> io::Result<()> {
    for first in (0..count).step_by(1_000) {
        let jobs = (first..count.min(first + 1_000)).map(|number| job(waiting, number)).collect();
        store.submit(jobs).await.map_err(io::Error::other)?;
    }
    Ok(())
}

fn claim(limit: u32) -> Claim {
    Claim {
        worker: WorkerId("claimer".to_owned()),
        ip: None,
        limit,
        queues: vec![executr_spec::QueueName::default()],
        offers: Arc::new(offers()),
        lease: Duration::from_secs(3_600),
    }
}

fn job(waiting: Waiting, number: usize) -> NewJob {
    let mut spec = JobSpec::new(vec![Step::new(StepCommand::Argv(vec!["true".to_owned()]))]);
    let mut tenant = Tenant::default();
    match waiting {
        Waiting::Alike => {}
        Waiting::OutOfReach => {
            if !number.is_multiple_of(CLASSES) {
                spec.labels.insert("kind".to_owned(), (number % CLASSES).to_string());
            }
        }
        Waiting::OneKey => spec.concurrency_key = Some("all".to_owned()),
        Waiting::Tenants => tenant = format!("tenant-{}", number % TENANTS).parse().unwrap_or_default(),
    }
    NewJob {
        id: JobId(uuid::Uuid::now_v7()),
        tenant,
        job_type: spec.job_type.clone(),
        queue: spec.queue.clone(),
        class: spec.requirements().class(),
        priority: spec.priority,
        run_at: None,
        max_retries: 0,
        backoff: spec.backoff,
        idempotency_key: None,
        concurrency: spec.concurrency().map(|(key, limit)| (key.to_owned(), limit)),
        blobs: vec![],
        spec: SpecJson::write(&spec).unwrap_or_else(|error| unreachable!("a small job: {error}")),
    }
}
