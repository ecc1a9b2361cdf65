//! Runs on a database that several stores share, and that goes away.

use std::collections::BTreeSet;

use executr_api::{RunCancel, RunEventKind, RunState};
use executr_spec::RunId;
use executr_store::{Gate, NewRun, NewRunJob, RunStore};

use super::*;

fn runs(store: &PostgresStore) -> &dyn RunStore {
    store
}

/// Layers of jobs, each of which needs all of the layer before it.
fn lattice(width: u32, depth: u32) -> NewRun {
    let step = |layer: u32, at: u32| NewRunJob {
        job: job(),
        name: format!("{layer}-{at}"),
        needs: if layer == 0 { vec![] } else { ((layer - 1) * width..layer * width).collect() },
        gate: Gate::Success,
        continue_on_error: false,
        pinned: None,
        inputs: vec![],
        done: None,
    };
    NewRun {
        id: RunId(Uuid::now_v7()),
        tenant: "default".parse().expect("a tenant"),
        name: "lattice".to_owned(),
        fail_fast: true,
        timeout: None,
        source: None,
        rerun_of: None,
        plan: "{}".into(),
        blobs: vec![],
        idempotency_key: None,
        jobs: (0..depth).flat_map(|layer| (0..width).map(move |at| step(layer, at))).collect(),
    }
}

/// Takes and ends jobs, a few at a time, until the run is over.
async fn work_at(store: Arc<PostgresStore>, name: String, run: RunId) {
    let began = Instant::now();
    while runs(&store).run(run).await.expect("read").expect("there").state == RunState::Running {
        assert!(began.elapsed() < DEADLINE, "the run is not over in time");
        let mut fences = claim(&store, &name, 3).await;
        // An answer that was lost on the way left leases behind.
        fences.extend(store.leases_of(&worker(&name)).await.expect("leases").iter().map(|lease| lease.fence));
        fences.sort_unstable();
        fences.dedup();
        // One by one, so that they meet others that end at the same time.
        let results = fences.into_iter().map(|fence| {
            let store = store.clone();
            tokio::spawn(async move { store.finish(vec![success(fence)]).await.expect("finished").remove(0) })
        });
        for answer in results.collect::<Vec<_>>() {
            let answer = answer.await.expect("an answer");
            assert!(matches!(answer, FinishAnswer::Taken(_) | FinishAnswer::Before(JobState::Completed)), "{answer:?}");
        }
    }
}

/// The whole story of a run in which everything succeeds: each job once, none before what it needs, without a gap.
async fn check(store: &PostgresStore, run: RunId, depth: u32) {
    let record = runs(store).run(run).await.expect("read").expect("there");
    let jobs = record.jobs.values().sum::<u64>();
    assert_eq!((record.state, &record.jobs), (RunState::Completed, &[(JobState::Completed, jobs)].into()));
    let events = runs(store).events(run, 0, u32::MAX).await.expect("read");
    assert_eq!(record.last_event, events.len() as u64);
    let (mut started, mut ended) = (BTreeSet::new(), BTreeMap::new());
    for (number, event) in (1..).zip(&events) {
        assert_eq!(event.number, number);
        let layer = |job: &str| job.split_once('-').expect("a layer").0.parse::<u32>().expect("a number");
        match &event.kind {
            RunEventKind::JobStarted { job, attempt, .. } => {
                assert_eq!(*attempt, 1, "{job} was handed out twice");
                assert!(started.insert(job.clone()), "{job} started twice");
                let before = layer(job).checked_sub(1);
                let done = before.is_none_or(|before| ended.get(&before) == Some(&(jobs / u64::from(depth))));
                assert!(done, "{job} started before what it needs ended");
            }
            RunEventKind::JobEnded { job, state: JobState::Completed, .. } => {
                assert!(started.contains(job), "{job} ended before it started");
                *ended.entry(layer(job)).or_insert(0_u64) += 1;
            }
            RunEventKind::RunCreated => assert_eq!(number, 1),
            RunEventKind::RunEnded { state } => {
                assert_eq!((*state, number), (RunState::Completed, record.last_event));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((started.len() as u64, ended.values().sum::<u64>()), (jobs, jobs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_work_at_one_run() {
    let Some(database) = postgres::database() else { return };
    let stores = [open(database.url()).await, open(database.url()).await];
    let new = lattice(8, 8);
    let run = new.id;
    runs(&stores[0]).submit_run(new).await.expect("submitted");
    let workers = (0..4).map(|number| {
        let store = stores[number % 2].clone();
        tokio::spawn(work_at(store, format!("w{number}"), run))
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("a worker");
    }
    check(&stores[1], run, 8).await;
    assert_eq!(stores.iter().map(|store| store.counters().errors).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_stopped_while_others_work_at_it() {
    let Some(database) = postgres::database() else { return };
    let stores = [open(database.url()).await, open(database.url()).await];
    for _ in 0..5 {
        let new = lattice(20, 3);
        let run = new.id;
        runs(&stores[0]).submit_run(new).await.expect("submitted");
        let takers = ["v", "w"].map(|name| {
            let store = stores[usize::from(name == "w")].clone();
            tokio::spawn(async move {
                // What was handed out is told to stop, or was not handed out at all.
                while runs(&store).run(run).await.expect("read").expect("there").completed_at.is_none() {
                    claim(&store, name, 4).await;
                    let held = store.leases_of(&worker(name)).await.expect("leases");
                    let asked = held.iter().filter(|lease| lease.cancelling);
                    let failed = asked.map(|lease| {
                        let mut finish = success(lease.fence);
                        finish.result.outcome = Outcome::Failed;
                        finish
                    });
                    store.finish(failed.collect()).await.expect("finished");
                }
            })
        });
        let answer =
            runs(&stores[1]).cancel_run(run, RunCancel::InOrder, "enough").await.expect("asked").expect("there");
        assert!(matches!(answer.0, RunState::Cancelling | RunState::Cancelled));
        for taker in takers {
            tokio::time::timeout(DEADLINE, taker).await.expect("in time").expect("a taker");
        }
        let record = runs(&stores[0]).run(run).await.expect("read").expect("there");
        assert_eq!((record.state, record.jobs), (RunState::Cancelled, [(JobState::Cancelled, 60)].into()));
        let events = runs(&stores[0]).events(run, 0, u32::MAX).await.expect("read");
        assert!((1..).zip(&events).all(|(number, event)| event.number == number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_leaves_runs_whole() {
    let Some(mut server) = Server::start(Durability::Synced) else { return };
    let database = server.database();
    let store = open(database.url()).await;
    let new = lattice(6, 40);
    let run = new.id;
    runs(&store).submit_run(new).await.expect("submitted");
    let workers = ["w1", "w2"].map(|name| tokio::spawn(work_at(store.clone(), name.to_owned(), run)));
    for (how, done) in [(Stop::Crash, 20), (Stop::Fast, 60), (Stop::Crash, 100)] {
        let reached = async {
            loop {
                let record = runs(&store).run(run).await.expect("read").expect("there");
                if record.jobs.get(&JobState::Completed).is_some_and(|jobs| *jobs >= done) {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.expect("in time");
        tokio::task::block_in_place(|| {
            server.stop(how);
            server.resume();
        });
    }
    for worker in workers {
        worker.await.expect("a worker");
    }
    check(&store, run, 40).await;
    assert_eq!(store.counters().errors, 0);
}
