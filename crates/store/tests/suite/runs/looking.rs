//! Looking at runs.

use executr_api::{JobQuery, JobState, JobStatus, Outcome, RunCancel, RunQuery, RunState};
use executr_spec::{RunId, Tenant};
use executr_store::{NewRun, NewRunJob};
use uuid::Uuid;

use super::{artifact, handing_on, run, step};
use crate::suite::Harness;
use crate::suite::stage::Stage;

impl<H: Harness> Stage<H> {
    async fn list(&self, query: RunQuery, tenant: Option<&str>) -> Vec<RunId> {
        let tenant: Option<Tenant> = tenant.map(|tenant| tenant.parse().expect("a tenant"));
        let runs = self.runs().runs(&query, tenant.as_ref()).await.expect("listed");
        runs.into_iter().map(|run| run.id).collect()
    }
}

pub(crate) async fn newest_first<H: Harness>(stage: Stage<H>) {
    let mut ids = vec![];
    for _ in 0..3 {
        ids.push(stage.start(run([step("a", &[])])).await);
    }
    ids.reverse();
    assert_eq!(stage.list(RunQuery::default(), None).await, ids);
    assert_eq!(stage.list(RunQuery { limit: Some(2), ..RunQuery::default() }, None).await, ids[..2]);
    assert_eq!(stage.list(RunQuery { before: Some(ids[0]), ..RunQuery::default() }, None).await, ids[1..]);
    let unknown = Some(RunId(Uuid::nil()));
    assert_eq!(stage.list(RunQuery { before: unknown, ..RunQuery::default() }, None).await, []);
}

pub(crate) async fn filtered<H: Harness>(stage: Stage<H>) {
    let of = |tenant: &str, name: &str| NewRun {
        tenant: tenant.parse().expect("a tenant"),
        name: name.to_owned(),
        ..run([step("a", &[])])
    };
    let first = stage.start(of("one", "ci")).await;
    let second = stage.start(of("two", "ci")).await;
    let third = stage.start(of("one", "nightly")).await;
    let fence = stage.claim_one().await;
    stage.finish(fence, Outcome::Succeeded).await;
    assert_eq!(stage.list(RunQuery::default(), Some("one")).await, [third, first]);
    assert_eq!(
        stage.list(RunQuery { name: Some("ci".to_owned()), ..RunQuery::default() }, None).await,
        [second, first]
    );
    let in_state = |state| RunQuery { state: Some(state), ..RunQuery::default() };
    assert_eq!(stage.list(in_state(RunState::Completed), None).await, [first]);
    assert_eq!(stage.list(in_state(RunState::Running), Some("one")).await, [third]);
    let counts = stage.runs().run_counts().await.expect("counted");
    assert_eq!(counts, [(RunState::Running, 2), (RunState::Completed, 1)].into());
}

pub(crate) async fn counted<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[0]), step("c", &[1])])).await;
    stage.end_next(Outcome::Failed).await;
    let waiting = stage.start(run([step("a", &[]), step("b", &[0])])).await;
    let stats = stage.store.stats().await.expect("stats");
    assert_eq!((stats.jobs_by_state["waiting"], stats.jobs_by_state["ready"]), (1, 1));
    assert_eq!((stats.jobs_by_status["completed"], stats.jobs_by_status["failed"]), (2, 1));
    assert_eq!(stats.pending_by_queue["default"], 2);
    let jobs = |status| JobQuery { status: Some(status), ..JobQuery::default() };
    let states = async |status| -> Vec<JobState> {
        let jobs = stage.store.jobs(&jobs(status)).await.expect("listed");
        jobs.into_iter().map(|job| job.state).collect()
    };
    assert_eq!(states(JobStatus::Completed).await, [JobState::Skipped, JobState::Skipped]);
    assert_eq!(states(JobStatus::Pending).await, [JobState::Waiting, JobState::Ready]);
    assert_eq!(stage.the_run(id).await.jobs, [(JobState::Failed, 1), (JobState::Skipped, 2)].into());
    assert_eq!(stage.the_run(waiting).await.jobs, [(JobState::Waiting, 1), (JobState::Ready, 1)].into());
}

pub(crate) async fn jobs_in_pages<H: Harness>(stage: Stage<H>) {
    let may_fail = NewRunJob { continue_on_error: true, ..step("b", &[0]) };
    let new = NewRun { plan: "the plan".into(), ..run([step("a", &[]), may_fail, step("c", &[0, 1])]) };
    let ids: Vec<_> = new.jobs.iter().map(|job| job.job.id).collect();
    let run = stage.start(new).await;
    let fence = stage.claim_one().await;
    stage.follow_result(handing_on(fence, &[("x", "y")], &[artifact("site", b"1")])).await;
    let all = stage.runs().run_jobs(run, 0, 9).await.expect("read");
    assert_eq!(all.iter().map(|job| job.job.id).collect::<Vec<_>>(), ids);
    let [a, b, c] = &all[..] else { panic!("{all:?}") };
    assert_eq!((a.index, a.name.as_str(), a.job.state), (0, "a", JobState::Completed));
    assert_eq!((a.handed.outputs["x"].as_str(), &a.handed.artifacts[..]), ("y", &[artifact("site", b"1")][..]));
    assert_eq!((&b.needs[..], b.continue_on_error, b.job.state), (&[0][..], true, JobState::Ready));
    assert_eq!((&c.needs[..], c.job.state), (&[0, 1][..], JobState::Waiting));
    assert_eq!(stage.runs().run_jobs(run, 1, 1).await.expect("read"), all[1..2]);
    assert_eq!(stage.runs().run_jobs(run, 3, 9).await.expect("read"), []);
    assert_eq!(stage.runs().run_plan(run).await.expect("read").as_deref(), Some("the plan"));
}

pub(crate) async fn unknown_runs<H: Harness>(stage: Stage<H>) {
    stage.start(run([step("a", &[])])).await;
    let unknown = RunId(Uuid::nil());
    let runs = stage.runs();
    assert_eq!(runs.run(unknown).await.expect("read"), None);
    assert_eq!(runs.run_plan(unknown).await.expect("read"), None);
    assert_eq!(runs.run_jobs(unknown, 0, 9).await.expect("read"), []);
    assert_eq!(runs.events(unknown, 0, 9).await.expect("read"), []);
    assert_eq!(runs.cancel_run(unknown, RunCancel::InOrder, "why").await.expect("asked"), None);
    assert_eq!(runs.artifacts(None, Some(unknown), 9).await.expect("read"), []);
}

pub(crate) async fn leases_tell_again<H: Harness>(stage: Stage<H>) {
    let pinned = NewRunJob { pinned: Some("vm".to_owned()), ..step("b", &[0]) };
    stage.start(run([step("a", &[]), pinned, step("c", &[1])])).await;
    let fence = stage.claim_one().await;
    stage.follow_result(handing_on(fence, &[("x", "y")], &[])).await;
    let claimed = stage.claim(1).await.remove(0);
    let plain = stage.running(crate::suite::stage::job()).await;
    let again = stage.runs().claimed_runs(&[plain.job, claimed.fence.job, fence.job]).await.expect("read");
    assert_eq!(again, [(claimed.fence.job, *claimed.run.expect("of a run"))]);
}
