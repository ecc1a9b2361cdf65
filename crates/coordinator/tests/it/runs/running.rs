//! The graph of a run: what goes on when, what is told, and what ends it.

use std::time::Duration;

use executr_api::{
    CancelWait, Client, ErrorCode, JobState, Outcome, RunCancel, RunClient, RunEventFollow, RunQuery, RunState, Verdict,
};
use executr_spec::{JobId, RunId};
use executr_store::Signal;
use futures_util::StreamExt as _;
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::{LEASE, Plan, Worker, client, events, follow, open, settle, start, store, verdicts};

const LONG: Duration = Duration::from_secs(60);

async fn job_id(coordinator: &executr_coordinator::Coordinator, run: RunId, name: &str) -> JobId {
    let jobs = client(coordinator).run_jobs(run, 0, None).await.unwrap();
    jobs.iter().find(|job| job.name == name).unwrap().id
}

#[tokio::test(start_paused = true)]
async fn a_diamond_runs_as_its_needs_are_met_and_wakes_who_waits() {
    let store = store();
    let coordinator = start(&store).await;
    let run = Plan::new(&["a", "b: a", "c: a", "d: b c"]).submit(&coordinator).await;
    assert_eq!((run.state, run.jobs[&JobState::Waiting], run.jobs[&JobState::Ready]), (RunState::Running, 3, 1));
    let told = follow(&coordinator, run.id, 0);
    let mut first = Worker::new("first", 1);
    let mut second = Worker::new("second", 1).waiting(LONG);
    first.exchange(&coordinator).await;
    assert_eq!(first.names(), ["a"]);
    let waiting = open(&coordinator, &mut second).await;
    assert!(!waiting.is_finished());
    first.end_all();
    first.exchange(&coordinator).await;
    second.follow(&waiting.await.unwrap());
    assert_eq!([first.names(), second.names()].concat().len(), 2, "both branches run");
    for worker in [&mut first, &mut second] {
        worker.end_all();
        worker.wait = Duration::ZERO;
        worker.exchange(&coordinator).await;
    }
    let last = if first.held.is_empty() { &mut second } else { &mut first };
    assert_eq!(last.names(), ["d"]);
    last.end_all();
    last.exchange(&coordinator).await;
    let told = told.await.unwrap();
    assert_eq!(told.first().unwrap(), "run_created");
    assert_eq!(told[told.len() - 3..], ["d started 1", "d completed", "run completed"]);
    assert_eq!(told.len(), 10, "{told:?}");
    assert_eq!(events(&coordinator, run.id).await, told);
    let run = client(&coordinator).run(run.id).await.unwrap();
    assert_eq!((run.state, run.jobs[&JobState::Completed], run.last_event), (RunState::Completed, 4, 10));
    assert!(run.started_at.is_some() && run.completed_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_result_lets_go_on_is_claimed_along_with_it() {
    let store = store();
    let coordinator = start(&store).await;
    Plan::new(&["a", "b: a"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["a"]);
    worker.end_all();
    store.take_calls();
    store.stall("finish", true);
    let exchange = open(&coordinator, &mut worker).await;
    // The result's own answer isn't there yet: a store that commits what gathers commits both at once.
    assert_eq!(store.take_calls().get("claim"), Some(&1));
    store.stall("finish", false);
    worker.follow(&exchange.await.unwrap());
    assert_eq!(worker.names(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_stops_what_has_not_started_and_jobs_for_it_run() {
    let store = store();
    let coordinator = start(&store).await;
    let jobs = ["a", "slow", "after: a", "mend: a if failure()", "last: after mend slow if always()"];
    let run = Plan::new(&jobs).submit(&coordinator).await;
    let mut worker = Worker::new("w", 4);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["a", "slow"]);
    worker.end_named("a", Outcome::Failed);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["mend", "slow"]);
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["last"]);
    worker.end_all();
    worker.exchange(&coordinator).await;
    let run = client(&coordinator).wait_run(run.id, LONG).await.unwrap();
    assert_eq!(run.state, RunState::Failed);
    assert!(run.message.unwrap().contains('a'));
    let jobs = client(&coordinator).run_jobs(run.id, 0, None).await.unwrap();
    let states: Vec<JobState> = jobs.iter().map(|job| job.state).collect();
    use JobState::{Completed, Failed, Skipped};
    assert_eq!(states, [Failed, Completed, Skipped, Completed, Completed]);
    assert_eq!(jobs[4].needs, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_already_can_be_cancelled_at_once() {
    let store = store();
    let coordinator = start(&store).await;
    let run = Plan::new(&["a", "clean: a if always()"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 4).waiting(LONG);
    worker.exchange(&coordinator).await;
    let client = client(&coordinator);
    let waiting = open(&coordinator, &mut worker).await;
    client.cancel_run(run.id, RunCancel::InOrder).await.unwrap();
    let orders = waiting.await.unwrap();
    assert_eq!((&orders.cancels, orders.at_once.len()), (&worker.held, 0));
    // It was told just now, and is told again.
    let waiting = open(&coordinator, &mut worker).await;
    let view = client.cancel_run(run.id, RunCancel::AtOnce).await.unwrap();
    assert_eq!(view.state, RunState::Cancelling);
    assert_eq!(view.jobs[&JobState::Cancelled], 1, "what nobody has is over");
    let orders = waiting.await.unwrap();
    assert_eq!((&orders.cancels, &orders.at_once), (&worker.held, &worker.held));
    worker.end_named("a", Outcome::Cancelled);
    worker.wait = Duration::ZERO;
    worker.exchange(&coordinator).await;
    assert!(worker.names().is_empty(), "nothing more is started");
    assert_eq!(client.run(run.id).await.unwrap().state, RunState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_stops_its_jobs_but_those_that_always_run() {
    let store = store();
    let coordinator = start(&store).await;
    let run = Plan::new(&["a", "b: a", "clean: a if always()"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 4).waiting(LONG);
    worker.exchange(&coordinator).await;
    let waiting = open(&coordinator, &mut worker).await;
    let waited = tokio::spawn({
        let client = client(&coordinator);
        async move { client.wait_run(run.id, LONG).await.unwrap() }
    });
    let run = client(&coordinator).cancel_run(run.id, RunCancel::InOrder).await.unwrap();
    assert_eq!(run.state, RunState::Cancelling);
    let orders = waiting.await.unwrap();
    assert_eq!(orders.cancels, worker.held);
    worker.end_named("a", Outcome::Cancelled);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["clean"]);
    worker.end_all();
    worker.wait = Duration::ZERO;
    worker.exchange(&coordinator).await;
    let run = waited.await.unwrap();
    assert_eq!(run.state, RunState::Cancelled);
    assert_eq!(
        client(&coordinator).cancel_run(run.id, RunCancel::InOrder).await.unwrap(),
        run,
        "an ended run stays as it is"
    );
    let told = events(&coordinator, run.id).await;
    assert!(told.contains(&"run_cancelling".to_owned()) && told.contains(&"b cancelled".to_owned()), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_cancelled_when_its_time_is_over() {
    let store = store();
    let coordinator = start(&store).await;
    let mut plan = Plan::new(&["a", "b: a"]);
    plan.0.timeout = Some("10s".parse().unwrap());
    let run = plan.submit(&coordinator).await;
    let run = client(&coordinator).wait_run(run.id, LONG).await.unwrap();
    assert_eq!(run.state, RunState::Cancelled);
    assert!(run.completed_at.unwrap().since(run.created_at) < Duration::from_secs(12));
}

#[tokio::test(start_paused = true)]
async fn a_single_job_of_a_run_is_looked_at_and_cancelled_like_any_other() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let run = Plan::new(&["a", "b: a", "c: b if always()"]).submit(&coordinator).await;
    let b = job_id(&coordinator, run.id, "b").await;
    let shown = client.job(b).await.unwrap();
    let part = shown.run.unwrap();
    assert_eq!((part.id, part.name.as_str(), shown.state), (run.id, "b", JobState::Waiting));
    assert_eq!(shown.waiting_for.as_deref(), Some("the jobs it needs: a"));
    client.cancel_pending(b).await.unwrap();
    let a = job_id(&coordinator, run.id, "a").await;
    let mut worker = Worker::new("w", 1).waiting(LONG);
    worker.exchange(&coordinator).await;
    assert_eq!(client.cancel(a, CancelWait::No).await.unwrap().state, JobState::Cancelling);
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["c"]);
    worker.end_all();
    worker.wait = Duration::ZERO;
    worker.exchange(&coordinator).await;
    assert_eq!(client.wait_run(run.id, LONG).await.unwrap().state, RunState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_with_the_next_coordinator() {
    let store = store();
    let coordinator = start(&store).await;
    let run = Plan::new(&["a", "b: a", "c: b"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["b"]);
    drop(coordinator);
    sleep(LEASE).await;
    let coordinator = start(&store).await;
    worker.end_all();
    assert_eq!(verdicts(&worker.exchange(&coordinator).await), [Verdict::Accepted]);
    assert_eq!(worker.names(), ["c"]);
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(client(&coordinator).run(run.id).await.unwrap().state, RunState::Completed);
    assert_eq!(events(&coordinator, run.id).await.iter().filter(|event| event.contains("started")).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn events_come_from_any_number_on_and_by_signals_from_elsewhere() {
    let store = store();
    let coordinator = start(&store).await;
    let run = Plan::new(&["a"]).submit(&coordinator).await;
    assert!(store.take_published().contains(&Signal::Run(run.id)));
    let after = follow(&coordinator, run.id, 1);
    let beyond = follow(&coordinator, run.id, 99);
    settle().await;
    assert!(!after.is_finished() && !beyond.is_finished());
    // Another coordinator hands the job out and takes its result.
    let other = start(&store).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&other).await;
    worker.end_all();
    worker.exchange(&other).await;
    settle().await;
    assert!(!after.is_finished(), "nobody told this one");
    store.signal(Signal::Run(run.id));
    settle().await;
    assert!(after.is_finished());
    assert_eq!(after.await.unwrap(), ["a started 1", "a completed", "run completed"]);
    assert!(beyond.is_finished(), "it is told that there will be no more");
    assert!(beyond.await.unwrap().is_empty());
    let none = client(&coordinator).run_events(run.id, RunEventFollow { after: 99, follow: true }).await.unwrap();
    assert_eq!(none.count().await, 0, "the run is over, there will be no more");
}

#[tokio::test(start_paused = true)]
async fn runs_are_listed_and_their_jobs_paged() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let names: Vec<String> = (0..700).map(|n| format!("j{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let large = Plan::new(&names).submit(&coordinator).await;
    let small = Plan::new(&["a"]).submit(&coordinator).await;
    let listed = client.runs(RunQuery::default()).await.unwrap();
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [small.id, large.id]);
    let before = RunQuery { before: Some(small.id), ..RunQuery::default() };
    assert_eq!(client.runs(before).await.unwrap().len(), 1);
    let page = client.run_jobs(large.id, 300, Some(300)).await.unwrap();
    assert_eq!((page[0].name.as_str(), page.len()), ("j300", 300));
    assert_eq!(client.run_jobs(large.id, 600, None).await.unwrap().len(), 100);
    assert!(client.run_jobs(large.id, 700, None).await.unwrap().is_empty());
    assert!(client.run_jobs(large.id, u32::MAX, None).await.unwrap().is_empty());
    assert_eq!(client.run_plan(large.id).await.unwrap().jobs.len(), 700);
    let odd = RunQuery { name: Some("a\0".to_owned()), ..RunQuery::default() };
    assert_eq!(client.runs(odd).await.unwrap_err().code, ErrorCode::BadRequest);
    let too_many = RunQuery { limit: Some(1_001), ..RunQuery::default() };
    assert_eq!(client.runs(too_many).await.unwrap_err().code, ErrorCode::BadRequest);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_not_found() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let id = RunId(Uuid::from_u128(7));
    let mut errors = vec![
        client.run(id).await.unwrap_err(),
        client.run_jobs(id, 0, None).await.unwrap_err(),
        client.run_plan(id).await.unwrap_err(),
        client.cancel_run(id, RunCancel::InOrder).await.unwrap_err(),
        client.wait_run(id, LONG).await.unwrap_err(),
        client.rerun(id, executr_api::RerunScope::All).await.unwrap_err(),
        client.artifacts(executr_api::ArtifactQuery { run: Some(id), limit: None }).await.unwrap_err(),
    ];
    errors.extend(client.run_events(id, RunEventFollow::default()).await.err());
    assert_eq!(errors.len(), 8);
    for error in errors {
        assert_eq!((error.code, error.context["run_id"].as_str()), (ErrorCode::NotFound, id.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_run_goes_on_from_its_directory_when_all_else_is_gone() {
    use executr_store::sqlite::{SqliteOptions, SqliteStore};
    let directory = tempfile::tempdir().unwrap();
    let open = || async {
        let store = SqliteStore::open(SqliteOptions::new(directory.path())).await.unwrap();
        crate::support::start_on(std::sync::Arc::new(store)).await
    };
    let coordinator = open().await;
    let jobs = ["a", "b: a if ${{ needs.a.outputs.k == 'v' }}", "c: b", "d: c if always()"];
    let run = Plan::new(&jobs).submit(&coordinator).await;
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(5));
    worker.exchange(&coordinator).await;
    super::handing_on::hand_on(&mut worker, "a", &[("k", "v")], Vec::new());
    worker.exchange(&coordinator).await;
    while worker.held.is_empty() {
        worker.exchange(&coordinator).await;
    }
    assert_eq!(worker.names(), ["b"]);
    worker.end_all();
    worker.wait = Duration::ZERO;
    worker.exchange_unheard(&coordinator).await;
    drop(coordinator);

    // Another process, with a worker of its own; the lease that was on its way is lost with the first.
    let coordinator = loop {
        match SqliteStore::open(SqliteOptions::new(directory.path())).await {
            Ok(store) => break crate::support::start_on(std::sync::Arc::new(store)).await,
            Err(executr_store::StoreError::Locked { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    worker.held.clear();
    worker.wait = Duration::from_secs(5);
    worker.exchange(&coordinator).await;
    for name in ["c", "d"] {
        while worker.held.is_empty() {
            worker.exchange(&coordinator).await;
        }
        assert_eq!(worker.names(), [name]);
        worker.end_all();
        worker.exchange(&coordinator).await;
    }
    assert_eq!(client(&coordinator).run(run.id).await.unwrap().state, RunState::Completed);
    let told = events(&coordinator, run.id).await;
    assert_eq!(told.iter().filter(|event| event.contains("started")).count(), 4, "{told:?}");
}
