//! Concurrency keys.

use std::time::Duration;

use executr_api::{JobState, Outcome};
use executr_spec::Priority;
use executr_store::NewJob;

use super::Harness;
use super::stage::{LEASE, Stage, constant, job, keyed, of};

pub(crate) async fn one_at_a_time<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([keyed("k", 1), keyed("k", 1), job(), keyed("l", 1)]).await;
    assert_eq!(stage.state(ids[1]).await, JobState::Blocked);
    let leases = stage.claim(9).await;
    assert_eq!(leases.iter().map(|lease| lease.fence.job).collect::<Vec<_>>(), [ids[0], ids[2], ids[3]]);
    let finished = stage.finish(leases[0].fence, Outcome::Succeeded).await;
    assert_eq!(finished.readied.iter().map(|readied| readied.jobs).sum::<u32>(), 1);
    assert_eq!(stage.take(9).await, [ids[1]]);
}

pub(crate) async fn up_to_the_limit<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit((0..5).map(|_| keyed("k", 3))).await;
    let leases = stage.claim(9).await;
    assert_eq!(leases.len(), 3);
    stage.succeed(leases[1].fence).await;
    assert_eq!(stage.take(9).await, [ids[3]]);
    assert_eq!(stage.state(ids[4]).await, JobState::Blocked);
}

pub(crate) async fn blocked_jobs_by_priority_then_age<H: Harness>(stage: Stage<H>) {
    let with = |priority| NewJob { priority, ..keyed("k", 1) };
    let first = stage.running(keyed("k", 1)).await;
    let ids = stage
        .submit([with(Priority::BestEffort), with(Priority::Background), with(Priority::Foreground), keyed("k", 1)])
        .await;
    let mut fence = first;
    for expected in [ids[2], ids[1], ids[3], ids[0]] {
        stage.succeed(fence).await;
        fence = stage.claim_one().await;
        assert_eq!(fence.job, expected);
        assert_eq!(stage.take(9).await, []);
    }
}

pub(crate) async fn keys_belong_to_their_tenant<H: Harness>(stage: Stage<H>) {
    let of = |tenant| NewJob { concurrency: Some(("k".to_owned(), 1)), ..of(tenant) };
    stage.submit([of("a"), of("b")]).await;
    assert_eq!(stage.take(9).await.len(), 2);
}

pub(crate) async fn released_when_cancelled<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([keyed("k", 1), keyed("k", 1), keyed("k", 1)]).await;
    assert_eq!(stage.cancel_waiting(ids[1]).await.readied, []);
    let cancelled = stage.cancel_waiting(ids[0]).await;
    assert_eq!(cancelled.readied.len(), 1);
    assert_eq!(stage.take(9).await, [ids[2]]);
}

pub(crate) async fn released_when_scheduled_again<H: Harness>(stage: Stage<H>) {
    let retried = NewJob { max_retries: 1, backoff: constant(60), ..keyed("k", 1) };
    let first = stage.running(retried).await;
    let second = stage.submit_one(keyed("k", 1)).await;
    let finished = stage.finish(first, Outcome::Failed).await;
    assert_eq!((finished.state, finished.readied.len()), (JobState::Scheduled, 1));
    let fence = stage.claim_one().await;
    assert_eq!(fence.job, second);
    stage.pass(Duration::from_secs(60)).await;
    assert_eq!(stage.store.advance(false, 100).await.expect("advanced").readied, []);
    assert_eq!(stage.state(first.job).await, JobState::Blocked);
    stage.succeed(fence).await;
    assert_eq!(stage.take(9).await, [first.job]);
}

pub(crate) async fn kept_by_a_retry_without_wait<H: Harness>(stage: Stage<H>) {
    let first = stage.running(NewJob { max_retries: 1, backoff: constant(0), ..keyed("k", 1) }).await;
    let second = stage.submit_one(NewJob { priority: Priority::Foreground, ..keyed("k", 1) }).await;
    stage.finish(first, Outcome::Failed).await;
    assert_eq!(stage.state(second).await, JobState::Blocked);
    assert_eq!(stage.take(9).await, [first.job]);
}

pub(crate) async fn kept_when_given_back<H: Harness>(stage: Stage<H>) {
    let first = stage.running(keyed("k", 1)).await;
    let second = stage.submit_one(keyed("k", 1)).await;
    stage.give_back(first).await;
    assert_eq!(stage.state(second).await, JobState::Blocked);
    assert_eq!(stage.take(9).await, [first.job]);
}

pub(crate) async fn each_jobs_own_limit_counts<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([keyed("k", 1), keyed("k", 1), keyed("k", 2), keyed("k", 3), keyed("k", 3)]).await;
    let states = [JobState::Ready, JobState::Blocked, JobState::Ready, JobState::Ready, JobState::Blocked];
    for (id, state) in ids.iter().zip(states) {
        assert_eq!(stage.state(*id).await, state);
    }
    let leases = stage.claim(9).await;
    // The first that waits allows one holder; nobody behind it is looked at.
    stage.succeed(leases[0].fence).await;
    stage.succeed(leases[1].fence).await;
    assert_eq!(stage.take(9).await, []);
    stage.succeed(leases[2].fence).await;
    assert_eq!(stage.take(9).await, [ids[1], ids[4]]);
}

pub(crate) async fn a_due_job_may_be_blocked<H: Harness>(stage: Stage<H>) {
    let run_at = Some(stage.now().await.plus(Duration::from_secs(10)));
    let ids = stage.submit([NewJob { run_at, ..keyed("k", 1) }, keyed("k", 1)]).await;
    assert_eq!(stage.state(ids[0]).await, JobState::Scheduled);
    stage.pass(Duration::from_secs(10)).await;
    stage.advance().await;
    assert_eq!(stage.state(ids[0]).await, JobState::Blocked);
    let fence = stage.claim_one().await;
    stage.succeed(fence).await;
    assert_eq!(stage.take(9).await, [ids[0]]);
}

pub(crate) async fn released_by_a_job_that_is_lost_for_good<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([keyed("k", 1), keyed("k", 1)]).await;
    for _ in 0..3 {
        assert_eq!(stage.claim_one().await.job, ids[0]);
        stage.lose_leases().await;
    }
    stage.pass(LEASE).await;
    let advanced = stage.advance().await;
    assert_eq!((advanced.ended.len(), advanced.readied.len()), (1, 1));
    assert_eq!(stage.take(9).await, [ids[1]]);
}
