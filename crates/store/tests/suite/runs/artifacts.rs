//! Artifacts, and the blobs kept for them.

use std::time::Duration;

use bytes::Bytes;
use executr_api::{AttemptResult, Outcome};
use executr_spec::Digest;
use executr_store::{Done, Handed, NewJob, NewRun, NewRunJob};
use uuid::Uuid;

use super::{artifact, handing_on, run, step};
use crate::suite::Harness;
use crate::suite::stage::{Stage, constant, result};

impl<H: Harness> Stage<H> {
    async fn put(&self, bytes: &'static [u8]) -> Digest {
        let (upload, digest) = (Uuid::new_v4(), Digest::of(bytes));
        self.store.append_blob(upload, 0, Bytes::from_static(bytes)).await.expect("appended");
        self.store.finish_blob(upload, digest, bytes.len() as u64).await.expect("kept");
        digest
    }

    /// Forgets all blobs that nothing names; whether these are still there.
    async fn left(&self, blobs: &[Digest]) -> Vec<bool> {
        self.pass(Duration::from_secs(100)).await;
        self.store.delete_blobs(self.now().await).await.expect("deleted");
        let mut left = vec![];
        for blob in blobs {
            left.push(self.store.read_blob(*blob, 0).await.expect("read").is_some());
        }
        left
    }
}

pub(crate) async fn inputs_come_with_the_lease<H: Harness>(stage: Stage<H>) {
    let wants = vec![(0, "site".to_owned()), (1, "site".to_owned()), (0, "nothing".to_owned()), (0, "log".to_owned())];
    let reader = NewRunJob { inputs: wants, ..step("c", &[1]) };
    stage.start(run([step("a", &[]), step("b", &[0]), reader])).await;
    let fence = stage.claim_one().await;
    stage
        .follow_result(handing_on(fence, &[], &[artifact("site", b"1"), artifact("log", b"2"), artifact("x", b"3")]))
        .await;
    stage.end_next(Outcome::Succeeded).await;
    let context = stage.claim(1).await.remove(0).run.expect("of a run");
    assert_eq!(context.artifacts, [artifact("site", b"1"), artifact("log", b"2")]);
}

pub(crate) async fn listed<H: Harness>(stage: Stage<H>) {
    let of =
        |tenant: &str| NewRun { tenant: tenant.parse().expect("a tenant"), ..run([step("a", &[]), step("b", &[])]) };
    let ids = [stage.start(of("one")).await, stage.start(of("two")).await];
    for claimed in stage.claim(9).await {
        let made = stage.name(&claimed).await;
        let both = [artifact(&format!("{made}-2"), b"2"), artifact(&format!("{made}-1"), b"1")];
        stage.follow_result(handing_on(claimed.fence, &[], &both)).await;
    }
    let all = stage.runs().artifacts(None, None, 100).await.expect("read");
    let names: Vec<_> = all.iter().map(|record| (record.run, record.artifact.name.as_str())).collect();
    let [one, two] = ids;
    let in_order = |id| [(id, "a-1"), (id, "a-2"), (id, "b-1"), (id, "b-2")];
    assert_eq!(names, [in_order(two), in_order(one)].concat());
    assert_eq!((all[0].job.as_str(), all[0].run_name.as_str(), all[0].tenant.as_str()), ("a", "ci", "two"));
    assert_eq!(stage.runs().artifacts(None, None, 3).await.expect("read"), all[..3]);
    assert_eq!(stage.runs().artifacts(Some(&"one".parse().expect("a tenant")), None, 9).await.expect("read"), all[4..]);
    assert_eq!(stage.runs().artifacts(None, Some(two), 9).await.expect("read"), all[..4]);
    assert_eq!(stage.runs().artifacts(Some(&"one".parse().expect("a tenant")), Some(two), 9).await.expect("read"), []);
    let jobs = stage.runs().run_jobs(one, 0, 9).await.expect("read");
    assert_eq!(jobs[1].handed.artifacts, [artifact("b-1", b"1"), artifact("b-2", b"2")]);
}

pub(crate) async fn only_of_the_attempt_that_counts<H: Harness>(stage: Stage<H>) {
    let a = step("a", &[]);
    let a = NewRunJob { job: NewJob { max_retries: 1, backoff: constant(0), ..a.job.clone() }, ..a };
    let id = stage.start(run([a])).await;
    for name in ["first", "second"] {
        let fence = stage.claim_one().await;
        let made = handing_on(fence, &[("by", name)], &[artifact(name, b"x")]);
        stage.follow_result(AttemptResult { outcome: Outcome::Failed, ..made }).await;
    }
    let handed = stage.runs().run_jobs(id, 0, 9).await.expect("read").remove(0).handed;
    assert_eq!((handed.outputs["by"].as_str(), handed.artifacts), ("second", vec![artifact("second", b"x")]));
}

pub(crate) async fn blobs_are_kept<H: Harness>(stage: Stage<H>) {
    stage.start(run([step("a", &[])])).await;
    let fence = stage.claim_one().await;
    let blobs = [stage.put(b"manifest").await, stage.put(b"pack").await, stage.put(b"other").await];
    let made = artifact("site", b"manifest");
    stage.runs().keep_artifact(fence.job, made.tree, blobs[..2].to_vec()).await.expect("kept");
    stage.runs().keep_artifact(fence.job, made.tree, blobs[1..2].to_vec()).await.expect("kept");
    assert_eq!(stage.left(&blobs).await, [true, true, false]);
    stage.follow_result(handing_on(fence, &[], &[made])).await;
    assert_eq!(stage.left(&blobs).await, [true, true, false]);
    // A job that was done elsewhere has it too, from the first moment of its run.
    let handed = Handed { artifacts: vec![artifact("site", b"manifest")], ..Default::default() };
    let done = Done { handed, kept: vec![(Digest::of(b"manifest"), blobs[..2].to_vec())] };
    stage.start(run([NewRunJob { done: Some(done), ..step("a", &[]) }])).await;
    assert_eq!(stage.runs().delete_artifacts(stage.now().await, 1).await.expect("deleted"), 1);
    assert_eq!(stage.left(&blobs).await, [true, true, false]);
    assert_eq!(stage.runs().delete_artifacts(stage.now().await, 9).await.expect("deleted"), 1);
    assert_eq!(stage.left(&blobs).await, [false; 3]);
}

pub(crate) async fn unnamed_blobs_are_let_go<H: Harness>(stage: Stage<H>) {
    stage.start(run([step("a", &[])])).await;
    let blobs = [stage.put(b"one").await, stage.put(b"two").await];
    let fence = stage.claim_one().await;
    for blob in blobs {
        stage.runs().keep_artifact(fence.job, blob, vec![blob]).await.expect("kept");
    }
    stage.follow_result(handing_on(fence, &[], &[artifact("two", b"two")])).await;
    assert_eq!(stage.left(&blobs).await, [false, true]);
    // Neither a plain job nor a finished one keeps anything new.
    let late = stage.put(b"late").await;
    stage.runs().keep_artifact(fence.job, late, vec![late]).await.expect("passed over");
    let plain = stage.running(crate::suite::stage::job()).await;
    stage.runs().keep_artifact(plain.job, late, vec![late]).await.expect("passed over");
    assert_eq!(stage.left(&[late]).await, [false]);

    stage.start(run([step("a", &[])])).await;
    let fence = stage.claim_one().await;
    let blob = stage.put(b"returned").await;
    stage.runs().keep_artifact(fence.job, blob, vec![blob]).await.expect("kept");
    stage.give_back(fence).await;
    assert_eq!(stage.left(&[blob]).await, [false]);
}

pub(crate) async fn they_outlive_their_run<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[])])).await;
    let taken = stage.take_all().await;
    let blob = stage.put(b"site").await;
    stage.runs().keep_artifact(taken["a"].job, blob, vec![blob]).await.expect("kept");
    stage.follow_result(handing_on(taken["a"], &[], &[artifact("site", b"site")])).await;
    stage.pass(Duration::from_secs(10)).await;
    assert_eq!(stage.runs().delete_artifacts(stage.now().await, 9).await.expect("deleted"), 0, "the run isn't final");
    stage.end(result(taken["b"], Outcome::Succeeded)).await;
    stage.pass(Duration::from_secs(10)).await;
    assert_eq!(stage.store.delete_final(stage.now().await, 9).await.expect("deleted"), 1);
    let artifacts = stage.runs().artifacts(None, Some(id), 9).await.expect("read");
    assert_eq!(artifacts.len(), 1);
    assert_eq!((artifacts[0].job.as_str(), &artifacts[0].artifact), ("a", &artifact("site", b"site")));
    assert_eq!(stage.left(&[blob]).await, [true]);
    assert_eq!(stage.runs().delete_artifacts(stage.now().await, 9).await.expect("deleted"), 1);
    assert_eq!(stage.left(&[blob]).await, [false]);
}

pub(crate) async fn a_runs_own_blobs<H: Harness>(stage: Stage<H>) {
    let (source, file) = (stage.put(b"source").await, stage.put(b"file").await);
    let a = step("a", &[]);
    let a = NewRunJob { job: NewJob { blobs: vec![file, source], ..a.job.clone() }, ..a };
    stage.start(NewRun { source: Some(source), blobs: vec![source], ..run([a]) }).await;
    assert_eq!(stage.left(&[source, file]).await, [true, true]);
    stage.end_next(Outcome::Succeeded).await;
    assert_eq!(stage.left(&[source, file]).await, [true, true]);
    assert_eq!(stage.store.delete_final(stage.now().await, 9).await.expect("deleted"), 1);
    assert_eq!(stage.left(&[source, file]).await, [false, false]);
}
