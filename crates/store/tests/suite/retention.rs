//! Final jobs go after a while.

use std::time::Duration;

use executr_api::JobState;
use executr_store::FinishAnswer;

use super::Harness;
use super::stage::{Stage, chunk, job, keyed, result};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn oldest_first_and_not_more_than_asked<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit((0..5).map(|_| job())).await;
    let leases = stage.claim(9).await;
    let mut times = vec![];
    for lease in leases.iter().rev() {
        stage.succeed(lease.fence).await;
        stage.pass(SECOND).await;
        times.push(stage.now().await);
    }
    assert_eq!(stage.store.delete_final(times[3], 3).await.expect("deleted"), 3);
    let kept = stage.store.jobs(&Default::default()).await.expect("listed");
    assert_eq!(kept.iter().map(|job| job.id).collect::<Vec<_>>(), [ids[1], ids[0]]);
    assert_eq!(stage.store.delete_final(times[3], 3).await.expect("deleted"), 1);
    assert_eq!(stage.store.delete_final(times[3], 3).await.expect("deleted"), 0);
    assert_eq!(stage.state(ids[0]).await, JobState::Completed);
    let stats = stage.store.stats().await.expect("stats");
    assert_eq!(stats.jobs_by_status["completed"], 1);
}

pub(crate) async fn only_final_jobs<H: Harness>(stage: Stage<H>) {
    let ids = stage.submit([keyed("k", 1), keyed("k", 1), job()]).await;
    stage.claim(1).await;
    stage.pass(SECOND).await;
    assert_eq!(stage.store.delete_final(stage.now().await, 99).await.expect("deleted"), 0);
    stage.cancel_waiting(ids[1]).await;
    stage.pass(SECOND).await;
    assert_eq!(stage.store.delete_final(stage.now().await, 99).await.expect("deleted"), 1);
    assert_eq!(stage.store.job(ids[1]).await.expect("read"), None);
    assert_eq!(stage.store.jobs(&Default::default()).await.expect("listed").len(), 2);
}

pub(crate) async fn everything_of_a_job_goes<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.store.append_output(&fence, chunk(0, &[b'x'; 100_000])).await.expect("appended");
    stage.succeed(fence).await;
    let other = stage.running(job()).await;
    stage.succeed(other).await;
    stage.pass(SECOND).await;
    stage.store.delete_final(stage.now().await, 99).await.expect("deleted");
    assert_eq!(stage.store.output(fence.job, 1, 0, 100).await.expect("read"), None);
    assert_eq!(stage.attempts(fence.job).await, []);
    assert_eq!(stage.end(result(fence, executr_api::Outcome::Succeeded)).await, FinishAnswer::LeaseLost);
}

pub(crate) async fn old_workers_are_forgotten<H: Harness>(stage: Stage<H>) {
    let start = stage.now().await;
    stage.store.put_workers(vec![super::workers::record("old")]).await.expect("recorded");
    stage.pass(SECOND).await;
    let before = stage.now().await;
    stage.store.put_workers(vec![super::workers::record("new")]).await.expect("recorded");
    assert_eq!(stage.store.delete_final(before, 99).await.expect("deleted"), 0);
    let known = stage.store.workers(start).await.expect("listed");
    assert_eq!(known.iter().map(|worker| worker.name.as_str()).collect::<Vec<_>>(), ["new"]);
}
