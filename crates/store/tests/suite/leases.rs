//! Leases run out, are taken back, are lost.

use std::time::Duration;

use executr_api::{AttemptStatus, JobState, Outcome};
use executr_store::{FinishAnswer, RenewAnswer};

use super::Harness;
use super::stage::{LEASE, Stage, job, result, wish, worker};

pub(crate) async fn renewing_prolongs<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    for _ in 0..3 {
        stage.pass(LEASE / 2).await;
        let before = stage.now().await;
        let RenewAnswer::Renewed { expires_at, cancelling: false } = stage.renew(fence).await else {
            panic!("not renewed");
        };
        assert!(expires_at >= before.plus(LEASE) && expires_at <= stage.now().await.plus(LEASE));
        assert_eq!(stage.advance().await.reclaimable, []);
    }
    let record = stage.job(fence.job).await;
    assert!(record.renewed_at > record.started_at);
}

pub(crate) async fn a_lease_that_ran_out_still_finishes<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.lose_leases().await;
    assert!(stage.job(fence.job).await.reclaimable);
    stage.succeed(fence).await;
    assert!(!stage.job(fence.job).await.reclaimable);
    assert_eq!(stage.take(9).await, []);
}

pub(crate) async fn without_leave_nothing_is_reclaimed<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.pass(LEASE * 5).await;
    let advanced = stage.store.advance(false, 100).await.expect("advanced");
    assert_eq!((advanced.reclaimable, advanced.ended, advanced.next_at), (vec![], vec![], None));
    assert_eq!(stage.take(9).await, []);
    assert_eq!(stage.state(fence.job).await, JobState::Running);
}

pub(crate) async fn reclaimable_jobs_are_handed_out_again<H: Harness>(stage: Stage<H>) {
    let old = stage.running(job()).await;
    let advanced = stage.lose_leases().await;
    assert_eq!(advanced.reclaimable, [(old.job, worker("w"))]);
    assert_eq!(advanced.readied[0].jobs, 1);
    let record = stage.job(old.job).await;
    assert_eq!((record.state, record.reclaimable, record.lost_leases), (JobState::Running, true, 0));
    assert_eq!(stage.advance().await.reclaimable, [], "it is told once");
    let answer = stage.store.claim(vec![wish("other", 9)]).await.expect("claimed").remove(0);
    assert_eq!(answer.revoked, [(old, worker("w"))]);
    let new = answer.leases[0].fence;
    assert_eq!((new.job, new.attempt), (old.job, 2));
    let record = stage.job(old.job).await;
    assert_eq!((record.reclaimable, record.lost_leases, record.worker), (false, 1, Some(worker("other"))));
    let attempts = stage.attempts(old.job).await;
    assert_eq!((attempts[0].status, attempts[1].status), (AttemptStatus::Lost, AttemptStatus::Running));
    assert!(attempts[0].ended_at.is_some() && attempts[1].ended_at.is_none());
    stage.succeed(new).await;
}

pub(crate) async fn renewing_takes_the_job_back<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.lose_leases().await;
    assert!(matches!(stage.renew(fence).await, RenewAnswer::Renewed { cancelling: false, .. }));
    assert!(!stage.job(fence.job).await.reclaimable);
    assert_eq!(stage.take(9).await, []);
    assert_eq!(stage.lose_leases().await.reclaimable.len(), 1);
    assert_eq!(stage.job(fence.job).await.lost_leases, 0);
}

pub(crate) async fn the_same_worker_may_take_it_again<H: Harness>(stage: Stage<H>) {
    let old = stage.running(job()).await;
    stage.lose_leases().await;
    let answer = stage.store.claim(vec![wish("w", 1)]).await.expect("claimed").remove(0);
    assert_eq!(answer.revoked, [(old, worker("w"))]);
    assert_eq!(stage.end(result(old, Outcome::Succeeded)).await, FinishAnswer::LeaseLost);
    stage.succeed(answer.leases[0].fence).await;
}

pub(crate) async fn workers_lost_too_often_fail_the_job<H: Harness>(stage: Stage<H>) {
    let id = stage.submit_one(job()).await;
    for lost in 0..2 {
        assert_eq!(stage.claim_one().await.attempt, lost + 1);
        assert_eq!(stage.lose_leases().await.reclaimable.len(), 1);
    }
    let last = stage.claim_one().await;
    let advanced = stage.lose_leases().await;
    assert_eq!((advanced.reclaimable, advanced.ended), (vec![], vec![]));
    stage.pass(LEASE).await;
    let advanced = stage.advance().await;
    assert_eq!(advanced.ended, [(id, JobState::Failed, last, worker("w"))]);
    let record = stage.job(id).await;
    assert_eq!((record.state, record.lost_leases, record.failures), (JobState::Failed, 3, 0));
    assert!(record.error_message.expect("a reason").contains("lost 3 times"));
    assert!(record.completed_at.is_some());
    assert!(stage.attempts(id).await.iter().all(|attempt| attempt.status == AttemptStatus::Lost));
    assert_eq!(stage.end(result(last, Outcome::Succeeded)).await, FinishAnswer::LeaseLost);
}

pub(crate) async fn the_last_lease_may_still_finish_a_while<H: Harness>(stage: Stage<H>) {
    stage.submit_one(job()).await;
    for _ in 0..2 {
        stage.claim_one().await;
        stage.lose_leases().await;
    }
    let last = stage.claim_one().await;
    stage.lose_leases().await;
    stage.succeed(last).await;
    assert_eq!(stage.state(last.job).await, JobState::Completed);
}

pub(crate) async fn the_next_time_is_told<H: Harness>(stage: Stage<H>) {
    assert_eq!(stage.advance().await.next_at, None);
    stage.submit_one(job()).await;
    let lease = stage.claim(1).await.remove(0);
    assert_eq!(stage.advance().await.next_at, Some(lease.expires_at));
    assert_eq!(stage.store.advance(false, 9).await.expect("advanced").next_at, None);
    let run_at = Some(stage.now().await.plus(Duration::from_secs(3)));
    stage.submit_one(executr_store::NewJob { run_at, ..job() }).await;
    assert_eq!(stage.advance().await.next_at, run_at);
}

pub(crate) async fn a_limit_cuts_the_work_short<H: Harness>(stage: Stage<H>) {
    stage.submit((0..5).map(|_| job())).await;
    stage.claim(9).await;
    stage.pass(LEASE).await;
    for (count, more) in [(2, true), (2, true), (1, false), (0, false)] {
        let advanced = stage.store.advance(true, 2).await.expect("advanced");
        assert_eq!((advanced.reclaimable.len(), advanced.more), (count, more));
    }
}

pub(crate) async fn leases_are_listed<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([job(), job(), job()]).await;
    let mine = stage.claim_as(wish("me", 2)).await;
    let other = stage.claim_as(wish("other", 2)).await;
    let listed = stage.store.leases_of(&worker("me")).await.expect("leases");
    assert_eq!(listed.iter().map(|lease| lease.fence).collect::<Vec<_>>(), [mine[0].fence, mine[1].fence]);
    assert_eq!((listed[0].expires_at, listed[0].cancelling), (mine[0].expires_at, false));
    assert_eq!((&listed[0].spec, &listed[0].worker), (&mine[0].spec, &worker("me")));
    stage.cancel(ids[2]).await;
    let lease = stage.store.lease_of(ids[2]).await.expect("read").expect("a lease");
    assert_eq!((lease.fence, lease.cancelling), (other[0].fence, true));
    stage.succeed(mine[0].fence).await;
    assert_eq!(stage.store.lease_of(ids[0]).await.expect("read"), None);
    assert_eq!(stage.store.leases_of(&worker("me")).await.expect("leases").len(), 1);
}
