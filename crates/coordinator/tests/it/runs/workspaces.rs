//! Jobs that share a workspace, and the worker that holds it.

use std::time::Duration;

use executr_api::{Outcome, RunClient, RunState, WorkspaceId, WorkspaceJob};
use executr_spec::ExecutorKind;
use executr_store::Signal;
use tokio::time::{Instant, sleep};

use crate::support::{LEASE, Plan, Worker, client, open, settle, start, store};

const LONG: Duration = Duration::from_secs(60);

fn worker(id: &str, slots: u32) -> Worker {
    let mut worker = Worker::new(id, slots);
    worker.hello.offers.executors.insert(ExecutorKind::Hooks);
    worker
}

fn workspace(run: executr_spec::RunId, generation: u32) -> WorkspaceId {
    WorkspaceId { run, executor: "shared".to_owned(), generation }
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_workspace_run_on_one_worker_which_cleans_up_at_the_end() {
    let store = store();
    let coordinator = start(&store).await;
    let names = ["a", "b", "c: a b"];
    let run = Plan::new(&names).pinned(&["a", "b", "c"]).submit(&coordinator).await;
    let mut holder = worker("holder", 1);
    let mut other = worker("other", 4).waiting(LONG);
    holder.exchange(&coordinator).await;
    assert_eq!(holder.names(), ["a"]);
    let lease = holder.lease("a").run.clone().unwrap().workspace.unwrap();
    let job = |name: &str| WorkspaceJob { name: name.to_owned(), steps: vec!["1".to_owned()] };
    assert_eq!((lease.id, lease.jobs), (workspace(run.id, 1), vec![job("a"), job("b"), job("c")]));
    let elsewhere = open(&coordinator, &mut other).await;
    let jobs = client(&coordinator).run_jobs(run.id, 0, None).await.unwrap();
    let shown = executr_api::Client::job(&client(&coordinator), jobs[1].id).await.unwrap();
    assert!(shown.waiting_for.clone().unwrap().contains("free slot"), "{:?}", shown.waiting_for);
    for name in ["a", "b", "c"] {
        assert_eq!(holder.names(), [name]);
        holder.end_all();
        let orders = holder.exchange(&coordinator).await;
        if name == "c" {
            assert_eq!(orders.workspaces, [workspace(run.id, 1)]);
        }
    }
    assert!(!elsewhere.is_finished(), "nothing was there for another worker");
    holder.wait = Duration::from_secs(30);
    let begin = Instant::now();
    while holder.exchange(&coordinator).await.workspaces.is_empty() {}
    assert!(begin.elapsed() >= Duration::from_secs(2), "it is told again, but not at once");
    holder.cleaned = vec![workspace(run.id, 1)];
    holder.wait = Duration::ZERO;
    holder.exchange(&coordinator).await;
    holder.cleaned.clear();
    sleep(LEASE).await;
    assert!(holder.exchange(&coordinator).await.workspaces.is_empty());
    assert_eq!(client(&coordinator).run(run.id).await.unwrap().state, RunState::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_worker_hears_of_a_workspace_to_clean_from_the_next_coordinator_and_by_signals() {
    let store = store();
    let coordinator = start(&store).await;
    let other = start(&store).await;
    let run = Plan::new(&["a", "b"]).pinned(&["a"]).submit(&coordinator).await;
    let mut holder = worker("holder", 2);
    holder.exchange(&coordinator).await;
    holder.end_named("a", Outcome::Succeeded);
    let mut moved = holder.clone();
    moved.held.clear();
    // Its result goes to another coordinator, the worker itself stays.
    moved.exchange_unheard(&other).await;
    holder.finished.clear();
    holder.sequence = moved.sequence;
    store.signal(Signal::Run(run.id));
    settle().await;
    assert_eq!(holder.exchange(&coordinator).await.workspaces, [workspace(run.id, 1)]);
    drop((coordinator, other));
    let coordinator = start(&store).await;
    assert_eq!(holder.exchange(&coordinator).await.workspaces, [workspace(run.id, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_workspace_of_a_lost_worker_goes_to_another() {
    let store = store();
    let coordinator = start(&store).await;
    let run = Plan::new(&["a", "b: a"]).pinned(&["a", "b"]).submit(&coordinator).await;
    let mut doomed = worker("doomed", 1);
    doomed.exchange(&coordinator).await;
    doomed.end_all();
    doomed.draining = true;
    doomed.exchange(&coordinator).await;
    // It has no lease any more that could run out, but what comes next is held to it.
    let jobs = client(&coordinator).run_jobs(run.id, 0, None).await.unwrap();
    let shown = executr_api::Client::job(&client(&coordinator), jobs[1].id).await.unwrap();
    assert!(shown.waiting_for.clone().is_some(), "{shown:?}");
    let mut other = worker("other", 1).waiting(LONG);
    let begin = Instant::now();
    while other.held.is_empty() {
        assert!(begin.elapsed() < LEASE * 4, "it waits for a worker that is gone");
        other.exchange(&coordinator).await;
    }
    assert!(begin.elapsed() >= LEASE);
    assert_eq!(other.lease("b").run.clone().unwrap().workspace.unwrap().id, workspace(run.id, 2));
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_no_workspace_from_a_worker_that_comes_back() {
    let store = store();
    let coordinator = start(&store).await;
    Plan::new(&["a", "b: a"]).pinned(&["a", "b"]).submit(&coordinator).await;
    let mut holder = worker("holder", 1);
    holder.exchange(&coordinator).await;
    sleep(Duration::from_secs(10)).await;
    drop(coordinator);
    sleep(LEASE * 20).await;
    let coordinator = start(&store).await;
    sleep(LEASE / 2).await;
    holder.end_all();
    holder.exchange(&coordinator).await;
    assert_eq!(holder.lease("b").run.clone().unwrap().workspace.unwrap().id.generation, 1);
}
