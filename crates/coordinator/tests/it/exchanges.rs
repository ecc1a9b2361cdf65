//! Claims, results and beats.

use std::collections::BTreeMap;
use std::time::Duration;

use executr_api::{Client, ErrorCode, JobState, Outcome, Verdict, Version, WorkerApi};
use executr_store::Store;
use tokio::time::{Instant, advance};

use crate::support::{
    LEASE, Worker, client, fences, job, open, plain, result, settle, start, store, submit, submit_plain, verdicts,
};

#[tokio::test(start_paused = true)]
async fn a_job_goes_to_a_waiting_worker_and_its_result_to_a_waiting_user_without_time_passing() {
    let store = store();
    let coordinator = start(&store).await;
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    let exchange = open(&coordinator, &mut worker).await;
    let begin = Instant::now();
    let job = client(&coordinator).submit(plain()).await.unwrap();
    assert_eq!(job.state, JobState::Ready);
    let waiting = tokio::spawn({
        let client = client(&coordinator);
        async move { client.wait(job.id, Duration::from_secs(60)).await.unwrap() }
    });
    let orders = exchange.await.unwrap();
    worker.follow(&orders);
    assert_eq!(orders.leases[0].fence.job, job.id);
    assert!(orders.leases[0].token.starts_with("executr-job-"));
    assert_eq!(orders.lease_ms, 15_000);
    worker.end_all();
    let orders = worker.exchange(&coordinator).await;
    assert_eq!(verdicts(&orders), [Verdict::Accepted]);
    let ended = waiting.await.unwrap();
    assert_eq!((ended.state, ended.exit_code), (JobState::Completed, Some(0)));
    assert_eq!(begin.elapsed(), Duration::ZERO, "nothing on the way waits for a timer");
}

#[tokio::test(start_paused = true)]
async fn a_worker_never_gets_more_than_it_has_slots_for() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 10).await;
    let mut worker = Worker::new("w", 3);
    let first = worker.exchange_unheard(&coordinator).await;
    assert_eq!(first.leases.len(), 3);
    // The answer was lost: the same leases come again, no others.
    let second = worker.exchange(&coordinator).await;
    assert_eq!(fences(&second), fences(&first));
    assert!(worker.exchange(&coordinator).await.leases.is_empty());
    worker.end(worker.held[0], Outcome::Succeeded);
    worker.returned.push(worker.held.pop().unwrap());
    let third = worker.exchange(&coordinator).await;
    assert_eq!(verdicts(&third), [Verdict::Accepted, Verdict::Accepted]);
    assert_eq!((third.leases.len(), worker.held.len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_bounded_however_many_slots_are_free_and_however_large_the_jobs_are() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 300).await;
    let mut worker = Worker::new("w", 100_000);
    assert_eq!(worker.exchange(&coordinator).await.leases.len(), 256);
    assert_eq!(worker.exchange(&coordinator).await.leases.len(), 44);
    let large = format!(r#"{{"steps":[{{"argv":["{}"]}}]}}"#, "x".repeat(1_000_000));
    client(&coordinator).submit_bulk(vec![job(&large); 20]).await.unwrap();
    assert_eq!(worker.exchange(&coordinator).await.leases.len(), 9);
    // The rest has its leases, and comes before anything new.
    submit_plain(&coordinator, 1).await;
    assert_eq!(worker.exchange(&coordinator).await.leases.len(), 9);
    assert_eq!(worker.exchange(&coordinator).await.leases.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_connection_broke_still_counts_against_the_slots() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 10).await;
    let mut worker = Worker::new("w", 4).waiting(Duration::from_secs(5));
    store.stall("claim", true);
    let broken = open(&coordinator, &mut worker).await;
    broken.abort();
    assert!(broken.await.unwrap_err().is_cancelled());
    let next = open(&coordinator, &mut worker).await;
    store.stall("claim", false);
    let orders = next.await.unwrap();
    worker.follow(&orders);
    assert_eq!(worker.held.len(), 4, "the broken exchange's leases come with the next answer, and no more");
    assert_eq!(store.leases_of(&worker.hello.id).await.unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_later_report_makes_the_earlier_exchange_return_at_once() {
    let store = store();
    let coordinator = start(&store).await;
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    let begin = Instant::now();
    let earlier = open(&coordinator, &mut worker).await;
    let later = open(&coordinator, &mut worker).await;
    assert!(earlier.await.unwrap().is_empty());
    assert_eq!(begin.elapsed(), Duration::ZERO);
    submit_plain(&coordinator, 1).await;
    assert_eq!(later.await.unwrap().leases.len(), 1, "the later one is served");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_arrives_late_delivers_its_results_and_nothing_else() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 3).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    worker.end_all();
    let late = worker.report();
    worker.finished.clear();
    worker.hello.slots = 0;
    worker.exchange(&coordinator).await;
    let orders = coordinator.exchange(late).await.unwrap();
    assert_eq!(verdicts(&orders), [Verdict::Accepted]);
    assert!(orders.leases.is_empty());
}

#[tokio::test(start_paused = true)]
async fn results_are_taken_by_their_fence_from_whoever_brings_them_and_once() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 1).await;
    let mut worker = Worker::new("before", 1);
    worker.exchange(&coordinator).await;
    let fence = worker.held[0];
    let mut successor = Worker::new("after", 1);
    for _ in 0..2 {
        successor.finished.push(result(fence, Outcome::Succeeded));
        assert_eq!(verdicts(&successor.exchange(&coordinator).await), [Verdict::Accepted]);
    }
    successor.finished.push(result(executr_api::Fence { attempt: 2, ..fence }, Outcome::Failed));
    assert_eq!(verdicts(&successor.exchange(&coordinator).await), [Verdict::LeaseLost]);
    assert_eq!(client(&coordinator).job(ids[0]).await.unwrap().state, JobState::Completed);
    submit_plain(&coordinator, 1).await;
    assert_eq!(worker.exchange(&coordinator).await.releases, [fence], "its first worker is told, and has a free slot");
}

#[tokio::test(start_paused = true)]
async fn a_held_lease_is_kept_for_as_long_as_its_worker_beats() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 1).await;
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    worker.exchange(&coordinator).await;
    let begin = Instant::now();
    while begin.elapsed() < LEASE * 4 {
        assert!(worker.exchange(&coordinator).await.is_empty());
    }
    let view = client(&coordinator).job(ids[0]).await.unwrap();
    assert_eq!((view.state, view.waiting_for, view.lost_leases), (JobState::Running, None, 0));
}

#[tokio::test(start_paused = true)]
async fn short_exchanges_renew_no_more_often_than_long_ones() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 1).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    store.take_calls();
    for _ in 0..100 {
        advance(Duration::from_millis(100)).await;
        worker.exchange(&coordinator).await;
    }
    assert_eq!(store.take_calls().get("renew"), Some(&2), "10 s are two thirds of a lease");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_goes_to_another_worker_and_the_first_is_told() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 1).await;
    let mut lost = Worker::new("lost", 1);
    lost.exchange(&coordinator).await;
    let fence = lost.held[0];
    let mut other = Worker::new("other", 1).waiting(Duration::from_secs(60));
    let begin = Instant::now();
    while other.held.is_empty() {
        assert!(begin.elapsed() < LEASE * 2, "the lease should have been lost by now");
        other.exchange(&coordinator).await;
    }
    assert!(begin.elapsed() >= LEASE);
    assert_eq!((other.held[0].job, other.held[0].attempt), (ids[0], 2));
    lost.end(fence, Outcome::Failed);
    let orders = lost.exchange(&coordinator).await;
    assert_eq!(verdicts(&orders), [Verdict::LeaseLost]);
    let view = client(&coordinator).job(ids[0]).await.unwrap();
    assert_eq!((view.state, view.lost_leases, view.attempt), (JobState::Running, 1, 2));
    assert_eq!(view.executor_id.unwrap(), other.hello.id);
}

#[tokio::test(start_paused = true)]
async fn a_worker_back_from_a_silence_keeps_its_jobs_rather_than_taking_them_anew() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 1).await;
    let mut worker = Worker::new("w", 2);
    worker.exchange(&coordinator).await;
    let fence = worker.held[0];
    tokio::time::sleep(LEASE * 2).await;
    let view = client(&coordinator).job(ids[0]).await.unwrap();
    assert!(view.waiting_for.unwrap().contains("not heard of"));
    assert!(worker.exchange(&coordinator).await.is_empty());
    assert_eq!(store.lease_of(ids[0]).await.unwrap().unwrap().fence, fence);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_from_another_coordinator_brings_its_leases() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    submit_plain(&one, 10).await;
    let mut worker = Worker::new("w", 2);
    worker.exchange(&one).await;
    assert_eq!(worker.held.len(), 2);
    assert!(worker.exchange(&other).await.is_empty());
    worker.end_all();
    // The answer with two new leases is lost, and the next report goes to the first coordinator.
    let unheard = worker.exchange_unheard(&other).await;
    assert_eq!(unheard.leases.len(), 2);
    let orders = worker.exchange(&one).await;
    assert_eq!(fences(&orders), fences(&unheard));
    assert_eq!(store.leases_of(&worker.hello.id).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_other_coordinators_let_know_wakes_waiting_workers() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    let exchange = open(&one, &mut worker).await;
    let begin = Instant::now();
    submit_plain(&other, 1).await;
    for signal in store.take_published() {
        store.signal(signal);
    }
    assert_eq!(exchange.await.unwrap().leases.len(), 1);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_got_lost_costs_seconds_and_no_more() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    worker.exchange(&one).await;
    let begin = Instant::now();
    submit_plain(&other, 1).await;
    while worker.held.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(11), "the look behind the signals comes every 5 s");
        worker.exchange(&one).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_draining_worker_is_given_nothing_new() {
    let store = store();
    let coordinator = start(&store).await;
    let mut worker = Worker::new("w", 2).waiting(Duration::from_secs(1));
    submit_plain(&coordinator, 1).await;
    worker.exchange(&coordinator).await;
    worker.draining = true;
    submit_plain(&coordinator, 1).await;
    assert!(worker.exchange(&coordinator).await.is_empty());
    worker.end_all();
    let orders = worker.exchange(&coordinator).await;
    assert_eq!((verdicts(&orders).len(), orders.leases.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_store_fails_the_exchange_and_costs_no_job() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 2).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    worker.end_all();
    for command in ["finish", "claim"] {
        store.fail(command, true);
    }
    let error = coordinator.exchange(worker.report()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    store.fail("finish", false);
    let orders = worker.exchange(&coordinator).await;
    assert_eq!((verdicts(&orders), orders.leases.len()), (vec![Verdict::Accepted], 0));
    store.fail("claim", false);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held[0].job, ids[1]);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_store_cannot_hold_keeps_no_other_out() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 3).await;
    let mut workers = [Worker::new("a", 1), Worker::new("b", 1), Worker::new("c", 1)];
    for worker in &mut workers {
        worker.exchange(&coordinator).await;
        worker.end_all();
    }
    store.poison(ids[1]);
    store.stall("renew", true);
    // A first flight, behind which the three gather.
    let mut other = Worker::new("other", 1);
    other.held.push(workers[0].finished[0].fence);
    let first = open(&coordinator, &mut other).await;
    let answers = workers.iter_mut().map(|worker| coordinator.exchange(worker.report()));
    let (answers, ()) = tokio::join!(futures_util::future::join_all(answers), async {
        settle().await;
        store.stall("renew", false);
    });
    first.await.unwrap();
    let taken: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [true, false, true]);
    assert_eq!(answers[1].as_ref().unwrap_err().code, ErrorCode::Internal);
}

#[tokio::test(start_paused = true)]
async fn what_a_result_makes_ready_goes_along_with_its_verdict() {
    let store = store();
    let coordinator = start(&store).await;
    let keyed = r#"{"steps":[{"argv":["true"]}],"concurrency_key":"k"}"#;
    let first = submit(&coordinator, keyed).await;
    let second = submit(&coordinator, keyed).await;
    assert_eq!(second.state, JobState::Blocked);
    assert!(second.waiting_for.unwrap().contains("concurrency key `k`"));
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held[0].job, first.id);
    worker.end_all();
    let orders = worker.exchange(&coordinator).await;
    assert_eq!((orders.verdicts.len(), orders.leases.len()), (1, 1));
    assert_eq!(worker.held[0].job, second.id);
}

#[tokio::test(start_paused = true)]
async fn queues_get_their_share_by_weight() {
    let store = store();
    let coordinator = start(&store).await;
    for queue in ["often", "seldom"] {
        let text = format!(r#"{{"steps":[{{"argv":["true"]}}],"queue":"{queue}"}}"#);
        client(&coordinator).submit_bulk(vec![job(&text); 400]).await.unwrap();
    }
    let mut worker = Worker::new("w", 1).serving(&[("often", 3), ("seldom", 1)]);
    let mut often = 0;
    for _ in 0..400 {
        let orders = worker.exchange(&coordinator).await;
        often += u32::from(orders.leases[0].spec.as_str().contains(r#""queue":"often""#));
        worker.end_all();
    }
    // Four standard deviations of a binomial distribution with n = 400 and p = ¾ are 34.6.
    assert!(often.abs_diff(300) < 35, "{often} of 400");
}

#[tokio::test(start_paused = true)]
async fn scheduled_jobs_and_retries_start_when_they_are_due() {
    let store = store();
    let coordinator = start(&store).await;
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    let now = store.now().await.unwrap();
    let text = format!(
        r#"{{"steps":[{{"argv":["true"]}}],"run_at":"{}","max_retries":1,"backoff":{{"min_time":"300ms"}}}}"#,
        now.plus(Duration::from_millis(250))
    );
    let begin = Instant::now();
    let view = submit(&coordinator, &text).await;
    assert_eq!(view.state, JobState::Scheduled);
    assert!(view.waiting_for.unwrap().starts_with("its start at 20"));
    worker.exchange(&coordinator).await;
    let waited = begin.elapsed();
    assert!((250..=255).contains(&waited.as_millis()), "{waited:?}");
    worker.end(worker.held[0], Outcome::Failed);
    let orders = worker.exchange(&coordinator).await;
    assert_eq!(verdicts(&orders), [Verdict::Accepted]);
    let view = client(&coordinator).job(view.id).await.unwrap();
    assert_eq!((view.state, view.retry_count), (JobState::Scheduled, 0));
    assert!(view.retry_after.is_some() && view.waiting_for.unwrap().contains("after a failure"));
    worker.exchange(&coordinator).await;
    let waited = begin.elapsed() - waited;
    assert!((300..=310).contains(&waited.as_millis()), "{waited:?}");
    let view = client(&coordinator).job(view.id).await.unwrap();
    assert_eq!((view.attempt, view.retry_count, view.attempts.unwrap().len()), (2, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_worker_too_far_apart_in_version_is_refused_with_what_to_upgrade() {
    let store = store();
    let coordinator = start(&store).await;
    let mut worker = Worker::new("w", 1);
    let current = Version::current();
    worker.hello.version = Version { minor: current.minor + 2, ..current };
    let error = coordinator.exchange(worker.report()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UpgradeRequired);
    assert!(error.message.contains("upgrade the server"), "{error}");
    assert!(store.take_calls().is_empty(), "nothing of the report was taken");
    worker.hello.version = Version { minor: current.minor + 1, ..current };
    coordinator.exchange(worker.report()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reports_that_make_no_sense_are_refused() {
    let store = store();
    let coordinator = start(&store).await;
    for spoil in [
        (|hello| hello.id.0 = String::new()) as fn(&mut executr_api::WorkerHello),
        |hello| hello.id.0 = "x".repeat(1_000),
        |hello| hello.id.0 = "a\nb".to_owned(),
        |hello| hello.queues.clear(),
        |hello| hello.slots = u32::MAX,
    ] {
        let mut worker = Worker::new("w", 1);
        spoil(&mut worker.hello);
        assert_eq!(coordinator.exchange(worker.report()).await.unwrap_err().code, ErrorCode::BadRequest);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_answers_open_exchanges_with_nothing_and_refuses_later_ones() {
    let store = store();
    let coordinator = start(&store).await;
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    let exchange = open(&coordinator, &mut worker).await;
    let begin = Instant::now();
    coordinator.shutdown().await;
    let orders = exchange.await.unwrap();
    assert!(orders.is_empty() && !orders.drain);
    settle().await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(coordinator.exchange(worker.report()).await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(client(&coordinator).submit(plain()).await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(coordinator.health().await.unwrap_err().code, ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_broken_request_does_not_leave_a_queue_unknown() {
    let store = store();
    submit_plain(&start(&store).await, 1).await;
    let coordinator = start(&store).await;
    let mut worker = Worker::new("w", 1);
    store.stall("classes", true);
    let broken = open(&coordinator, &mut worker).await;
    broken.abort();
    assert!(broken.await.unwrap_err().is_cancelled());
    store.stall("classes", false);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_says_of_itself_has_a_limit() {
    let store = store();
    let coordinator = start(&store).await;
    let long = "x".repeat(257);
    let many: BTreeMap<String, String> = (0..101).map(|n| (n.to_string(), String::new())).collect();
    for (field, change) in [
        ("name", Box::new(|worker: &mut Worker| worker.hello.name = long.clone()) as Box<dyn Fn(&mut Worker)>),
        ("ip", Box::new(|worker: &mut Worker| worker.hello.ip = Some(long.clone()))),
        ("labels", Box::new(|worker: &mut Worker| worker.hello.offers.labels = [(long.clone(), String::new())].into())),
        ("labels", Box::new(|worker: &mut Worker| worker.hello.offers.labels.clone_from(&many))),
    ] {
        let mut worker = Worker::new("w", 1);
        change(&mut worker);
        let error = coordinator.exchange(worker.report()).await.unwrap_err();
        assert_eq!((error.code, error.context["field"].as_str()), (ErrorCode::BadRequest, field));
    }
}
