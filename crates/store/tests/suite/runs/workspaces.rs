//! Workspaces that one worker holds.

use std::time::Duration;

use executr_api::{Outcome, RunState, WorkspaceId};
use executr_spec::RunId;
use executr_store::{NewJob, NewRunJob, WorkspaceRecord};

use super::{run, step};
use crate::suite::Harness;
use crate::suite::stage::{LEASE, Stage, constant, job, worker};

/// A job that runs where its workspace is.
fn pinned(name: &str, needs: &[u32]) -> NewRunJob {
    NewRunJob { pinned: Some("vm".to_owned()), ..step(name, needs) }
}

fn vm(run: RunId, generation: u32) -> WorkspaceId {
    WorkspaceId { run, executor: "vm".to_owned(), generation }
}

impl<H: Harness> Stage<H> {
    async fn workspaces(&self, name: &str) -> Vec<(u32, bool)> {
        let records = self.runs().workspaces_of(&worker(name)).await.expect("read");
        records.into_iter().map(|record| (record.id.generation, record.released)).collect()
    }

    async fn taken_names(&self, worker: &str) -> Vec<String> {
        self.take_as(worker).await.into_keys().collect()
    }
}

pub(crate) async fn the_first_claim_makes_the_holder<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([pinned("a", &[]), pinned("b", &[]), step("c", &[])])).await;
    assert_eq!(stage.workspaces("w").await, []);
    let claimed = stage.claim(1).await.remove(0);
    assert_eq!(claimed.run.expect("of a run").workspace, Some(vm(id, 1)));
    let held = WorkspaceRecord { id: vm(id, 1), worker: worker("w"), released: false };
    assert_eq!(stage.runs().workspaces_of(&worker("w")).await.expect("read"), [held]);
    // The others don't get what uses it.
    assert_eq!(stage.taken_names("v").await, ["c"]);
    let class = stage.runs().run_jobs(id, 1, 1).await.expect("read").remove(0).job.class;
    assert_eq!(class, job().class.on_worker(Some(&worker("w"))));
    assert_eq!(stage.taken_names("w").await, ["b"]);
}

pub(crate) async fn others_wait_for_the_holder<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([pinned("a", &[]), pinned("b", &[0]), pinned("c", &[])])).await;
    // Both that are ready at once go to the same worker.
    let taken = stage.take_as("w").await;
    assert_eq!(taken.keys().collect::<Vec<_>>(), ["a", "c"]);
    let finished = stage.finish(taken["a"], Outcome::Succeeded).await;
    assert_eq!(finished.readied[0].class, job().class.on_worker(Some(&worker("w"))));
    assert!(stage.take_as("v").await.is_empty());
    assert_eq!(stage.taken_names("w").await, ["b"]);
    assert_eq!(stage.workspaces("w").await, [(1, false)]);
    assert_eq!(stage.run_state(id).await, RunState::Running);
}

pub(crate) async fn released_at_the_end<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([pinned("a", &[]), pinned("b", &[0]), step("c", &[])])).await;
    let taken = stage.take_as("w").await;
    assert_eq!(stage.follow(taken["a"], Outcome::Succeeded).await.released, []);
    let b = stage.take_as("w").await["b"];
    assert_eq!(stage.follow(b, Outcome::Succeeded).await.released, [(vm(id, 1), worker("w"))]);
    assert_eq!(stage.workspaces("w").await, [(1, true)]);
    // Another worker can't clean it up.
    stage.runs().cleaned(&worker("v"), vec![vm(id, 1)]).await.expect("passed over");
    assert_eq!(stage.workspaces("w").await, [(1, true)]);
    stage.runs().cleaned(&worker("w"), vec![vm(id, 1)]).await.expect("cleaned");
    assert_eq!(stage.workspaces("w").await, []);
    stage.succeed(taken["c"]).await;

    let id = stage.start(run([pinned("a", &[]), pinned("b", &[0])])).await;
    let a = stage.take_as("w").await["a"];
    // What it skips uses it no more either; and a lost worker has nothing to clean up.
    assert_eq!(stage.follow(a, Outcome::Failed).await.released, [(vm(id, 1), worker("w"))]);
    stage.runs().lose_workspaces(vec![worker("w")]).await.expect("lost");
    assert_eq!(stage.workspaces("w").await, []);
}

pub(crate) async fn a_lost_holder<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([pinned("a", &[]), pinned("b", &[0]), pinned("c", &[0])])).await;
    let a = stage.take_as("w").await["a"];
    stage.succeed(a).await;
    let progress = stage.runs().lose_workspaces(vec![worker("w"), worker("x")]).await.expect("lost");
    assert_eq!(progress.readied.len(), 1);
    assert_eq!((&progress.readied[0].class, progress.readied[0].jobs), (&job().class, 2));
    assert_eq!(stage.workspaces("w").await, []);
    let claimed = stage.claim(1).await.remove(0);
    assert_eq!(claimed.run.expect("of a run").workspace, Some(vm(id, 2)));
    assert_eq!(stage.workspaces("w").await, [(2, false)]);
    assert!(stage.take_as("v").await.is_empty());
}

pub(crate) async fn a_lease_that_ran_out<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([pinned("a", &[]), pinned("b", &[]), pinned("c", &[])])).await;
    let first = stage.claim(1).await.remove(0).fence;
    let second = stage.take_as("w").await["b"];
    stage.give_back(second).await;
    // Its holder may still take the others, and go on.
    stage.lose_leases().await;
    let c = stage.take_as("w").await;
    assert_eq!(c.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(stage.workspaces("w").await, [(1, false)]);
    assert_ne!(c["a"], first);
    // Whoever takes it over holds the workspace, and gets all that is ready.
    stage.give_back(c["b"]).await;
    stage.pass(LEASE).await;
    stage.renew(c["c"]).await;
    stage.advance().await;
    let taken = stage.store.claim(vec![crate::suite::stage::wish("v", 1)]).await.expect("claimed").remove(0);
    assert_eq!(stage.name(&taken.leases[0]).await, "a");
    assert_eq!(taken.leases[0].run.as_ref().expect("of a run").workspace, Some(vm(id, 2)));
    assert_eq!(taken.run.released, [(vm(id, 1), worker("w"))]);
    assert_eq!(taken.run.readied.len(), 1);
    assert!(stage.take_as("w").await.is_empty());
    assert_eq!(stage.taken_names("v").await, ["b"]);
    assert_eq!((stage.workspaces("w").await, stage.workspaces("v").await), (vec![(1, true)], vec![(2, false)]));
    // What still runs in the old one ends there.
    stage.succeed(c["c"]).await;
}

pub(crate) async fn a_retry_stays<H: Harness>(stage: Stage<H>) {
    let a = pinned("a", &[]);
    let a = NewRunJob { job: NewJob { max_retries: 1, backoff: constant(5), ..a.job.clone() }, ..a };
    let id = stage.start(run([a])).await;
    let fence = stage.take_as("w").await["a"];
    stage.finish(fence, Outcome::Failed).await;
    stage.pass(Duration::from_secs(6)).await;
    stage.advance().await;
    assert!(stage.take_as("v").await.is_empty());
    let fence = stage.take_as("w").await["a"];
    assert_eq!(stage.follow(fence, Outcome::Succeeded).await.released, [(vm(id, 1), worker("w"))]);
}
