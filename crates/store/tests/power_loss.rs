//! What the embedded store has acknowledged is there after the power was lost.

use std::collections::BTreeMap;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use executr_api::{AttemptResult, JobState, Outcome, RunEventKind, RunQuery};
use executr_spec::{Backoff, ExecutorKind, JobId, JobSpec, Offers, RunId, SpecJson, Step, StepCommand, WorkerId};
use executr_store::sqlite::{SqliteOptions, SqliteStore};
use executr_store::{
    CancelAnswer, Claim, Finish, FinishAnswer, Gate, NewJob, NewRun, NewRunJob, RunRecord, RunStore, Store, StoreError,
};
use tempfile::TempDir;
use uuid::Uuid;

mod forgetful;

/// How often the power goes.
const LOSSES: usize = 12;

fn job() -> NewJob {
    // Some weight, so that the log is moved into the database now and then.
    let spec = JobSpec::new(vec![Step::new(StepCommand::Argv(vec!["true".to_owned(), "x".repeat(6_000)]))]);
    NewJob {
        id: JobId(Uuid::now_v7()),
        tenant: "default".parse().expect("a tenant"),
        job_type: "command".parse().expect("a type"),
        queue: "default".parse().expect("a queue"),
        class: spec.requirements().class(),
        priority: spec.priority,
        run_at: None,
        max_retries: 0,
        backoff: Backoff::default(),
        idempotency_key: None,
        concurrency: None,
        blobs: vec![],
        spec: SpecJson::write(&spec).expect("a small job"),
    }
}

/// A run of four jobs: one, then two, then the last.
fn diamond() -> NewRun {
    let step = |needs: &[u32]| NewRunJob {
        job: job(),
        name: format!("after-{needs:?}"),
        needs: needs.to_vec(),
        gate: Gate::Success,
        continue_on_error: false,
        pinned: None,
        inputs: vec![],
        done: None,
    };
    NewRun {
        id: RunId(Uuid::now_v7()),
        tenant: "default".parse().expect("a tenant"),
        name: "diamond".to_owned(),
        fail_fast: true,
        timeout: None,
        source: None,
        rerun_of: None,
        plan: "{}".into(),
        blobs: vec![],
        idempotency_key: None,
        jobs: vec![step(&[]), step(&[0]), step(&[0]), step(&[1, 2])],
    }
}

/// What each job was last acknowledged as: recorded, handed out, or final.
#[derive(Default)]
struct Acknowledged(Mutex<HashMap<JobId, JobState>>);

impl Acknowledged {
    fn note(&self, id: JobId, state: JobState) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, state);
    }

    fn all(&self) -> HashMap<JobId, JobState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Uses the store until told to stop.
async fn use_it(store: Arc<SqliteStore>, acknowledged: Arc<Acknowledged>, number: usize) {
    for round in 0.. {
        let jobs: Vec<_> = (0..1 + round % 40).map(|_| job()).collect();
        for submitted in store.submit(jobs).await.expect("submitted").jobs {
            acknowledged.note(submitted.id, JobState::Ready);
            if round % 7 == 3 {
                let answers = store.cancel(vec![submitted.id], true, "not wanted").await.expect("cancelled");
                if matches!(answers[0], CancelAnswer::Cancelled(_)) {
                    acknowledged.note(submitted.id, JobState::Cancelled);
                }
            }
        }
        if round % 4 == 1 {
            let run = diamond();
            let ids: Vec<_> = run.jobs.iter().map(|job| job.job.id).collect();
            store.submit_run(run).await.expect("submitted");
            for id in ids {
                acknowledged.note(id, JobState::Waiting);
            }
        }
        let claim = Claim {
            worker: WorkerId(format!("w-{number}")),
            ip: None,
            limit: 25,
            queues: vec!["default".parse().expect("a queue")],
            offers: Arc::new(Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() }),
            lease: Duration::from_secs(3_600),
        };
        let leases = store.claim(vec![claim]).await.expect("claimed").remove(0).leases;
        let mut results = vec![];
        for lease in leases {
            acknowledged.note(lease.fence.job, JobState::Running);
            if round % 3 != 0 {
                let result = AttemptResult {
                    fence: lease.fence,
                    outcome: Outcome::Succeeded,
                    exit_code: Some(0),
                    error_message: None,
                    retryable: false,
                    fails_run: false,
                    usage: None,
                    steps: vec![],
                    output: None,
                    output_bytes: 0,
                    duration_us: 0,
                    outputs: BTreeMap::new(),
                    artifacts: Vec::new(),
                };
                results.push(Finish { result });
            }
        }
        let fences: Vec<_> = results.iter().map(|finish| finish.result.fence).collect();
        for (fence, answer) in fences.iter().zip(store.finish(results).await.expect("finished")) {
            assert!(matches!(answer, FinishAnswer::Taken(_)));
            acknowledged.note(fence.job, JobState::Completed);
        }
    }
}

/// How far a job has come.
fn progress(state: JobState) -> u8 {
    match state {
        JobState::Scheduled | JobState::Blocked | JobState::Waiting | JobState::Ready => 0,
        JobState::Running | JobState::Cancelling => 1,
        JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::Skipped => 2,
    }
}

async fn check(directory: &Path, acknowledged: &HashMap<JobId, JobState>) {
    let store = SqliteStore::open(SqliteOptions::new(directory)).await.expect("opened after the power was lost");
    let found: HashMap<_, _> =
        store.jobs(&Default::default()).await.expect("listed").into_iter().map(|job| (job.id, job.state)).collect();
    for (id, state) in acknowledged {
        let found = found.get(id).unwrap_or_else(|| panic!("{id}, acknowledged as {state}, is gone"));
        assert!(progress(*found) >= progress(*state), "{id} was acknowledged as {state} and is {found}");
        if state.is_final() {
            assert_eq!(found, state);
        }
    }
    let counted: u64 = store.stats().await.expect("stats").jobs_by_status.values().sum();
    assert_eq!(counted, found.len() as u64, "counts and jobs agree");
    for run in RunStore::runs(&store, &RunQuery::default(), None).await.expect("listed") {
        check_run(&store, &run).await;
    }
}

/// A run is as one moment left it: nothing that followed from what is there is missing.
async fn check_run(store: &SqliteStore, run: &RunRecord) {
    let jobs = store.run_jobs(run.id, 0, u32::MAX).await.expect("read");
    let mut counts: BTreeMap<JobState, u64> = BTreeMap::new();
    for job in &jobs {
        *counts.entry(job.job.state).or_default() += 1;
        let needs_are_final = job.needs.iter().all(|need| jobs[*need as usize].job.state.is_final());
        assert_eq!(job.job.state == JobState::Waiting, !needs_are_final, "{} in {jobs:?}", job.name);
    }
    assert_eq!(run.jobs, counts);
    assert_eq!(run.state.is_final(), jobs.iter().all(|job| job.job.state.is_final()));
    let events = store.events(run.id, 0, u32::MAX).await.expect("read");
    assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), (1..=run.last_event).collect::<Vec<_>>());
    let ended = events.iter().filter(|event| matches!(event.kind, RunEventKind::JobEnded { .. })).count();
    assert_eq!(ended, jobs.iter().filter(|job| job.job.state.is_final()).count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_loss_of_power() {
    forgetful::install();
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().canonicalize().expect("a path");
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(&path)).await.expect("opened"));
    let acknowledged = Arc::new(Acknowledged::default());
    let users: Vec<_> =
        (0..4).map(|number| tokio::spawn(use_it(store.clone(), acknowledged.clone(), number))).collect();
    let mut random: u64 = 42;
    for loss in 0..LOSSES {
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged.all().len() < (loss + 1) * 250 {
            assert!(Instant::now() < deadline && users.iter().all(|user| !user.is_finished()), "nothing goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // First what was said, then what is left: nothing said later is asked for.
        let said = acknowledged.all();
        let left = TempDir::new().expect("a directory");
        forgetful::lose_power(&path, left.path(), || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Nothing, about half, or nearly all of what wasn't synced comes through.
            (random >> 40) % 10 < [0, 5, 9][loss % 3]
        });
        check(left.path(), &said).await;
    }
    for user in users {
        user.abort();
    }
}

#[tokio::test]
async fn what_could_not_be_begun_was_not_done() {
    forgetful::install();
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().canonicalize().expect("a path");
    let store = SqliteStore::open(SqliteOptions::new(&path)).await.expect("opened");
    let (first, second) = (job(), job());
    store.submit(vec![first.clone()]).await.expect("submitted");
    forgetful::refuse_next_transaction("store-writer");
    let refused = store.submit(vec![second.clone()]).await.expect_err("the disk failed");
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let ids = |jobs: Vec<executr_store::JobRecord>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids(store.jobs(&Default::default()).await.expect("listed")), [first.id]);
    assert_eq!(store.stats().await.expect("stats").jobs_by_status.values().sum::<u64>(), 1);
    // It is sent again, and all is as if nothing had been.
    assert!(!store.submit(vec![second.clone()]).await.expect("submitted").jobs[0].existing);
    assert_eq!(ids(store.jobs(&Default::default()).await.expect("listed")), [second.id, first.id]);
    drop(store);
    let store = SqliteStore::open(SqliteOptions::new(&path)).await.expect("opened");
    assert_eq!(store.stats().await.expect("stats").jobs_by_status.values().sum::<u64>(), 2);
}
