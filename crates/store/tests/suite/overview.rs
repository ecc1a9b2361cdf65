//! What can be seen: one job, lists, counts, classes.

use std::time::Duration;

use executr_api::{
    AttemptResult, JobQuery, JobState, JobStatus, MemorySource, Outcome, StepOutcome, StepResult, Usage,
};
use executr_spec::{JobId, Priority};
use executr_store::{MAX_CLASSES_PER_QUEUE, NewJob, StoreError};
use uuid::Uuid;

use super::Harness;
use super::stage::{LEASE, Stage, job, keyed, labelled, result, wish, worker};

pub(crate) async fn a_job_shows_what_was_asked<H: Harness>(stage: Stage<H>) {
    let before = stage.now().await;
    let new = NewJob {
        tenant: "team".parse().expect("a tenant"),
        job_type: "übung".parse().expect("a type"),
        queue: "gpu/a100:8".parse().expect("a queue"),
        priority: Priority::BestEffort,
        max_retries: 7,
        ..labelled("a b=c%")
    };
    stage.submit_one(new.clone()).await;
    let record = stage.job(new.id).await;
    assert_eq!((record.id, &record.tenant, &record.job_type), (new.id, &new.tenant, &new.job_type));
    assert_eq!((&record.queue, &record.class, record.priority), (&new.queue, &new.class, new.priority));
    assert_eq!((record.max_retries, &record.spec, record.state), (7, &new.spec, JobState::Ready));
    assert!(record.created_at >= before && record.created_at <= stage.now().await);
    assert_eq!((record.attempt, record.worker, record.started_at), (0, None, None));
}

pub(crate) async fn attempts_show_what_happened<H: Harness>(stage: Stage<H>) {
    let id = stage.submit_one(job()).await;
    let lease = stage.claim_as(wish("me", 1)).await.remove(0);
    assert_eq!((lease.fence.job, lease.fence.attempt, &lease.spec), (id, 1, &job().spec));
    assert_eq!(lease.expires_at, lease.started_at.plus(LEASE));
    let record = stage.job(id).await;
    assert_eq!((record.state, record.attempt, record.worker), (JobState::Running, 1, Some(worker("me"))));
    assert_eq!((record.started_at, record.renewed_at), (Some(lease.started_at), Some(lease.started_at)));
    let running = stage.attempts(id).await.remove(0);
    assert_eq!((running.fence, running.ip.as_deref(), running.ended_at), (lease.fence, Some("192.0.2.1"), None));
    let usage = Some(Usage {
        user_us: 1_000,
        system_us: 2_000,
        peak_memory_bytes: 3 << 30,
        peak_memory_source: MemorySource::Cgroup,
    });
    let steps = vec![
        StepResult { name: "one".into(), outcome: StepOutcome::Succeeded, exit_code: Some(0), duration_ms: 5 },
        StepResult { name: "two".into(), outcome: StepOutcome::TimedOut, exit_code: None, duration_ms: 6 },
    ];
    stage.pass(Duration::from_secs(2)).await;
    let result =
        AttemptResult { exit_code: Some(137), usage, steps: steps.clone(), ..result(lease.fence, Outcome::Failed) };
    stage.end(result).await;
    let ended = stage.attempts(id).await.remove(0);
    assert_eq!((ended.exit_code, ended.usage, &ended.steps), (Some(137), usage, &steps));
    assert_eq!((ended.worker, ended.error_message.as_deref()), (worker("me"), Some("exit code 1")));
    assert!(ended.ended_at.expect("ended").since(ended.started_at) >= Duration::from_secs(2));
    let record = stage.job(id).await;
    assert_eq!((record.exit_code, record.usage, record.renewed_at), (Some(137), usage, None));
    assert_eq!((record.completed_at, record.worker), (ended.ended_at, Some(worker("me"))));
}

async fn listed<H: Harness>(stage: &Stage<H>, query: JobQuery) -> Vec<JobId> {
    stage.store.jobs(&query).await.expect("listed").into_iter().map(|job| job.id).collect()
}

pub(crate) async fn listing_newest_first<H: Harness>(stage: Stage<H>) {
    let mut ids = stage.submit([job(), job(), job()]).await;
    ids.extend(stage.submit([job()]).await);
    ids.reverse();
    assert_eq!(listed(&stage, JobQuery::default()).await, ids);
    let records = stage.store.jobs(&JobQuery::default()).await.expect("listed");
    assert_eq!(records[0], stage.job(ids[0]).await);
}

pub(crate) async fn filtered<H: Harness>(stage: Stage<H>) {
    let typed = NewJob { job_type: "special".parse().expect("a type"), ..job() };
    let queued = NewJob { queue: "other".parse().expect("a queue"), ..job() };
    let urgent = NewJob { priority: Priority::Foreground, ..job() };
    let ids = stage.submit([keyed("k", 1), keyed("k", 1), typed, queued, urgent]).await;
    let fence = stage.claim_one().await;
    assert_eq!(fence.job, ids[4]);
    let by = |status| JobQuery { status: Some(status), ..JobQuery::default() };
    assert_eq!(listed(&stage, by(JobStatus::Running)).await, [ids[4]]);
    assert_eq!(listed(&stage, by(JobStatus::Pending)).await, [ids[3], ids[2], ids[1], ids[0]]);
    stage.cancel(ids[4]).await;
    assert_eq!(listed(&stage, by(JobStatus::Running)).await, [ids[4]]);
    stage.succeed(fence).await;
    assert_eq!(listed(&stage, by(JobStatus::Completed)).await, [ids[4]]);
    assert_eq!(listed(&stage, by(JobStatus::Failed)).await, []);
    let special = JobQuery { job_type: "special".parse().ok(), ..JobQuery::default() };
    assert_eq!(listed(&stage, special.clone()).await, [ids[2]]);
    let other = JobQuery { queue: "other".parse().ok(), ..JobQuery::default() };
    assert_eq!(listed(&stage, other).await, [ids[3]]);
    let urgent = JobQuery { priority: Some(Priority::Foreground), ..JobQuery::default() };
    assert_eq!(listed(&stage, urgent).await, [ids[4]]);
    let both = JobQuery { status: Some(JobStatus::Running), ..special };
    assert_eq!(listed(&stage, both).await, []);
}

pub(crate) async fn pages<H: Harness>(stage: Stage<H>) {
    let mut ids = stage.submit((0..7).map(|_| job())).await;
    ids.reverse();
    let page = |offset, before| JobQuery { limit: Some(3), offset, before, ..JobQuery::default() };
    assert_eq!(listed(&stage, page(0, None)).await, ids[..3]);
    assert_eq!(listed(&stage, page(5, None)).await, ids[5..]);
    assert_eq!(listed(&stage, page(0, Some(ids[2]))).await, ids[3..6]);
    assert_eq!(listed(&stage, page(1, Some(ids[2]))).await, ids[4..7]);
    assert_eq!(listed(&stage, page(0, Some(ids[6]))).await, []);
    assert_eq!(listed(&stage, page(0, Some(JobId(Uuid::new_v4())))).await, []);
}

pub(crate) async fn counted<H: Harness>(stage: Stage<H>) {
    let run_at = Some(stage.now().await.plus(Duration::from_secs(60)));
    let other = NewJob { queue: "other".parse().expect("a queue"), priority: Priority::BestEffort, ..job() };
    let urgent = || NewJob { priority: Priority::Foreground, ..job() };
    stage.submit([urgent(), urgent(), urgent(), keyed("k", 1), keyed("k", 1), NewJob { run_at, ..job() }, other]).await;
    let leases = stage.claim(3).await;
    stage.succeed(leases[0].fence).await;
    stage.cancel(leases[1].fence.job).await;
    let stats = stage.store.stats().await.expect("stats");
    let map = |entries: &[(&str, u64)]| entries.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    assert_eq!(
        stats.jobs_by_status,
        map(&[("pending", 4), ("running", 2), ("completed", 1), ("failed", 0), ("cancelled", 0)])
    );
    assert_eq!(stats.pending_by_priority, map(&[("foreground", 0), ("background", 3), ("best_effort", 1)]));
    assert_eq!(
        stats.jobs_by_state,
        map(&[("scheduled", 1), ("blocked", 1), ("waiting", 0), ("ready", 2), ("running", 1), ("cancelling", 1)])
    );
    assert_eq!(stats.pending_by_queue, map(&[("default", 3), ("other", 1)]));
}

pub(crate) async fn live_classes<H: Harness>(stage: Stage<H>) {
    let queue = "default".parse().expect("a queue");
    assert_eq!(stage.store.classes(&queue).await.expect("classes"), []);
    let [plain, gpu] = [job(), labelled("a100")].map(|job| job.class);
    let run_at = Some(stage.now().await.plus(Duration::from_secs(60)));
    let scheduled = stage.submit([NewJob { run_at, ..labelled("a100") }, job()]).await[0];
    let classes = stage.store.classes(&queue).await.expect("classes");
    assert_eq!(classes, [(plain.clone(), true), (gpu.clone(), false)]);
    let fence = stage.claim_one().await;
    let classes = stage.store.classes(&queue).await.expect("classes");
    assert_eq!(classes, [(plain.clone(), false), (gpu.clone(), false)]);
    stage.cancel_waiting(scheduled).await;
    stage.advance().await;
    assert_eq!(stage.store.classes(&queue).await.expect("classes"), [(plain, false)]);
    stage.succeed(fence).await;
    stage.advance().await;
    assert_eq!(stage.store.classes(&queue).await.expect("classes"), []);
}

pub(crate) async fn too_many_classes_record_nothing<H: Harness>(stage: Stage<H>) {
    let most = MAX_CLASSES_PER_QUEUE;
    let ids = stage.submit((1..most).map(|n| labelled(&n.to_string()))).await;
    let batch = vec![labelled("1"), labelled("new"), labelled("one too many")];
    let lost = batch[0].id;
    let refused = stage.store.submit(batch).await;
    assert!(matches!(refused, Err(StoreError::TooManyClasses { index: 2, .. })));
    assert_eq!(stage.store.job(lost).await.expect("read"), None);
    assert_eq!(stage.store.stats().await.expect("stats").jobs_by_status["pending"], most as u64 - 1);
    stage.submit_one(labelled("new")).await;
    let elsewhere = NewJob { queue: "other".parse().expect("a queue"), ..labelled("one too many") };
    stage.submit_one(elsewhere).await;
    assert!(stage.store.submit(vec![labelled("one too many")]).await.is_err());
    stage.cancel_waiting(ids[0]).await;
    stage.advance().await;
    stage.submit_one(labelled("one too many")).await;
}

pub(crate) async fn unknown_things<H: Harness>(stage: Stage<H>) {
    let unknown = JobId(Uuid::new_v4());
    assert_eq!(stage.store.job(unknown).await.expect("read"), None);
    assert_eq!(stage.attempts(unknown).await, []);
    assert_eq!(stage.store.lease_of(unknown).await.expect("read"), None);
    assert_eq!(stage.store.leases_of(&worker("nobody")).await.expect("read"), []);
    assert!(!stage.store.revoke_token(executr_spec::TokenId(Uuid::new_v4())).await.expect("revoked"));
    stage.store.ping().await.expect("it works");
    assert!(stage.store.counters().queries > 0);
}
