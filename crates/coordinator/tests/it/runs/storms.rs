//! Runs on several workers at once, with connections that break, on every store that keeps runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use executr_api::{JobState, Outcome, RunClient, RunState, WorkerApi};
use executr_coordinator::Coordinator;
use executr_spec::{ExecutorKind, RunId, WorkerId};
use executr_store::Store;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::{Plan, Worker, client, connect, database, embedded, events, start, start_on, store};

const JOBS: usize = 120;
const WORKERS: usize = 6;

/// A graph in which each job needs up to three of the twenty before it; every fifth asks the coordinator, every seventh
/// shares a workspace, and a few fail.
fn graph() -> Plan {
    let jobs: Vec<String> = (0..JOBS)
        .map(|n| {
            let needs: HashSet<usize> =
                [3, 7, 17].into_iter().filter_map(|back| n.checked_sub(back * (n % 3))).collect();
            let needs = needs.into_iter().filter(|need| *need != n).map(|need| format!("j{need}"));
            let condition = if n % 5 == 0 { "${{ always() && matrix.n >= 0 }}" } else { "success()" };
            format!("j{n}: {} if {condition}", needs.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let mut plan = Plan::new(&jobs);
    plan.0.fail_fast = false;
    for n in 0..JOBS {
        plan = plan.with(&format!("j{n}"), |_, workflow| drop(workflow.matrix.insert("n".to_owned(), n.into())));
    }
    let shared: Vec<String> = (0..JOBS).filter(|n| n % 7 == 0).map(|n| format!("j{n}")).collect();
    plan.pinned(&shared.iter().map(String::as_str).collect::<Vec<_>>())
}

fn fails(name: &str) -> bool {
    name.ends_with("33")
}

/// Workers whose exchanges break now and then run the graph, against one coordinator or several on the same store.
/// Returns who ran each job.
async fn storm(coordinators: &[Coordinator]) -> (RunId, HashMap<String, HashSet<WorkerId>>) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let over = Arc::new(AtomicBool::new(false));
    let run = graph().submit(&coordinators[0]).await.id;
    let mut tasks = JoinSet::new();
    for n in 0..WORKERS {
        let (coordinators, over) = (coordinators.to_vec(), Arc::clone(&over));
        tasks.spawn(async move {
            let mut worker = Worker::new(&format!("w{n}"), 3).waiting(Duration::from_millis(500));
            worker.hello.offers.executors.insert(ExecutorKind::Hooks);
            let coordinator = &coordinators[n % coordinators.len()];
            let mut ran = Vec::new();
            for exchange in 0_usize.. {
                if over.load(Ordering::Acquire) {
                    break;
                }
                assert!(Instant::now() < deadline, "w{n} holds {:?}", worker.names());
                for name in worker.names() {
                    worker.end_named(&name, if fails(&name) { Outcome::Failed } else { Outcome::Succeeded });
                    ran.push(name);
                }
                // One in five is given up: what it did is done, its answer is lost.
                let patience = Duration::from_millis(if exchange % 5 == n % 5 { 1 } else { 5_000 });
                if let Ok(orders) = timeout(patience, coordinator.exchange(worker.report())).await {
                    let orders = orders.unwrap();
                    assert!(orders.leases.iter().all(|lease| lease.run.as_ref().is_some_and(|part| part.run == run)));
                    worker.cleaned.extend(orders.workspaces.iter().cloned());
                    worker.follow(&orders);
                }
            }
            (worker.hello.id, ran)
        });
    }
    let ended = client(&coordinators[0]).wait_run(run, Duration::from_secs(120)).await.unwrap();
    over.store(true, Ordering::Release);
    assert_eq!(ended.state, RunState::Failed, "{ended:?}");
    let mut who: HashMap<String, HashSet<WorkerId>> = HashMap::new();
    while let Some(worker) = tasks.join_next().await {
        let (id, ran) = worker.unwrap();
        for name in ran {
            who.entry(name).or_default().insert(id.clone());
        }
    }
    (run, who)
}

async fn check(store: &dyn Store, coordinators: &[Coordinator]) {
    let (run, who) = storm(coordinators).await;
    let jobs = client(&coordinators[0]).run_jobs(run, 0, None).await.unwrap();
    let states: BTreeMap<&str, JobState> = jobs.iter().map(|job| (job.name.as_str(), job.state)).collect();
    let failed_before = |n: usize, all: &[bool]| jobs[n].needs.iter().any(|need| all[*need as usize]);
    let mut bad: Vec<bool> = Vec::new();
    for n in 0..JOBS {
        let name = format!("j{n}");
        let before = failed_before(n, &bad);
        let expected = match (before && n % 5 != 0, fails(&name)) {
            (true, _) => JobState::Skipped,
            (false, true) => JobState::Failed,
            (false, false) => JobState::Completed,
        };
        assert_eq!(states[name.as_str()], expected, "{name}");
        assert_eq!(who.get(&name).map_or(0, HashSet::len), usize::from(expected != JobState::Skipped), "{name}");
        bad.push(before || expected == JobState::Failed);
    }
    let holders: HashSet<&WorkerId> =
        who.iter().filter(|(name, _)| name[1..].parse::<usize>().unwrap() % 7 == 0).flat_map(|(_, who)| who).collect();
    assert_eq!(holders.len(), 1, "all that share a workspace ran on one worker");
    let told = events(&coordinators[0], run).await;
    let ends = told.iter().filter(|event| event.starts_with('j') && !event.contains("started")).count();
    assert_eq!((ends, told.last().unwrap().as_str()), (JOBS, "run failed"));
    assert!(store.runs().unwrap().questions(10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_graph_comes_to_its_end_however_many_connections_break() {
    let store = store();
    let coordinator = start(&store).await;
    check(&*store, &[coordinator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn and_so_it_does_on_the_embedded_store() {
    let (_directory, store) = embedded().await;
    let coordinator = start_on(Arc::clone(&store)).await;
    check(&*store, &[coordinator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn and_with_two_coordinators_on_one_postgresql() {
    let Some(database) = database().await else { return };
    let (one, other) = (connect(&database).await, connect(&database).await);
    let coordinators = [start_on(Arc::clone(&one)).await, start_on(other).await];
    check(&*one, &coordinators).await;
}
