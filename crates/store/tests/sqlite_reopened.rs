//! What the embedded store finds again after its process ended, and who may open it.

use std::collections::BTreeMap;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_api::output::{OutputChunk, Record, RecordWriter, Stream};
use executr_api::{AttemptResult, Fence, JobQuery, JobState, Outcome};
use executr_spec::{
    Backoff, Digest, ExecutorKind, JobId, JobSpec, LeaseId, Offers, SpecJson, Step, StepCommand, Timestamp, WorkerId,
};
use executr_store::sqlite::{SqliteOptions, SqliteStore};
use executr_store::{
    AppendAnswer, Claim, Claimed, Finish, FinishAnswer, JobRecord, ManualClock, NewJob, Store, StoreError,
};
use tempfile::TempDir;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(30);

fn job() -> NewJob {
    let spec = JobSpec::new(vec![Step::new(StepCommand::Argv(vec!["true".to_owned()]))]);
    NewJob {
        id: JobId(Uuid::now_v7()),
        tenant: "default".parse().expect("a tenant"),
        job_type: "command".parse().expect("a type"),
        queue: "default".parse().expect("a queue"),
        class: spec.requirements().class(),
        priority: spec.priority,
        run_at: None,
        max_retries: 0,
        backoff: Backoff::default(),
        idempotency_key: None,
        concurrency: None,
        blobs: vec![],
        spec: SpecJson::write(&spec).expect("a small job"),
    }
}

fn of(tenant: &str) -> NewJob {
    NewJob { tenant: tenant.parse().expect("a tenant"), ..job() }
}

async fn claim(store: &SqliteStore, limit: u32) -> Vec<Claimed> {
    let claim = Claim {
        worker: WorkerId("w".to_owned()),
        ip: None,
        limit,
        queues: vec!["default".parse().expect("a queue")],
        offers: Arc::new(Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() }),
        lease: LEASE,
    };
    store.claim(vec![claim]).await.expect("claimed").remove(0).leases
}

fn result(fence: Fence, output: Option<OutputChunk>) -> Finish {
    let result = AttemptResult {
        fence,
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        error_message: None,
        retryable: false,
        fails_run: false,
        usage: None,
        steps: vec![],
        output,
        output_bytes: 0,
        duration_us: 0,
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    };
    Finish { result }
}

fn chunk(offset: u64, bytes: &[u8]) -> OutputChunk {
    let mut writer = RecordWriter::default();
    writer.push(Stream::Stdout, bytes);
    OutputChunk { offset, records: writer.take() }
}

async fn open(directory: &Path, clock: &ManualClock) -> SqliteStore {
    let options = SqliteOptions { clock: Arc::new(clock.clone()), ..SqliteOptions::new(directory) };
    SqliteStore::open(options).await.expect("opened")
}

/// Where the segment file of an attempt lies.
fn segment(directory: &Path, fence: &Fence) -> std::path::PathBuf {
    let last = fence.job.0.as_bytes()[15];
    directory.join("output").join(format!("{last:02x}")).join(format!("{}-{}", fence.job, fence.attempt))
}

#[tokio::test]
async fn jobs_in_every_state_are_as_they_were() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    let keyed = || NewJob { concurrency: Some(("k".to_owned(), 1)), ..job() };
    let run_at = Some(store.now().await.expect("the time").plus(LEASE * 9));
    let once = NewJob { idempotency_key: Some("once".to_owned()), ..job() };
    let jobs =
        vec![of("a"), of("b"), keyed(), keyed(), NewJob { run_at, ..job() }, once.clone(), job(), job(), of("a")];
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    store.submit(jobs).await.expect("submitted");
    let leases = claim(&store, 4).await;
    store.finish(vec![result(leases[0].fence, Some(chunk(0, b"printed")))]).await.expect("finished");
    store.cancel(vec![leases[1].fence.job, ids[7]], false, "not wanted").await.expect("cancelled");
    clock.advance(LEASE);
    let advanced = store.advance(true, 1).await.expect("advanced");
    assert!(advanced.more);
    let before = observe(&store, &ids).await;
    drop(store);

    let store = open(directory.path(), &clock).await;
    assert_eq!(observe(&store, &ids).await, before);
    let again = store.submit(vec![once]).await.expect("submitted");
    assert!(again.jobs[0].existing);
    // Exactly what could run can be taken.
    let could_run = |job: &JobRecord| job.state == JobState::Ready || job.reclaimable;
    let listed = store.jobs(&JobQuery::default()).await.expect("listed");
    let mut expected: Vec<_> = listed.iter().filter(|job| could_run(job)).map(|job| job.id).collect();
    let mut taken: Vec<_> = claim(&store, 99).await.into_iter().map(|lease| lease.fence.job).collect();
    expected.sort();
    taken.sort();
    assert_eq!(taken, expected);
    assert!(taken.len() >= 2);
}

/// All that can be seen.
async fn observe(store: &SqliteStore, ids: &[JobId]) -> String {
    let mut all = format!("{:#?}", store.jobs(&JobQuery::default()).await.expect("listed"));
    for id in ids {
        all += &format!("{:#?}", store.attempts(*id).await.expect("read"));
        all += &format!("{:#?}", store.lease_of(*id).await.expect("read"));
        all += &format!("{:#?}", store.output(*id, 1, 0, 1_000).await.expect("read"));
    }
    all += &format!("{:#?}", store.stats().await.expect("stats"));
    all + &format!("{:#?}", store.classes(&"default".parse().expect("a queue")).await.expect("classes"))
}

#[tokio::test]
async fn turns_go_on() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    store.submit(vec![of("a"), of("b")]).await.expect("submitted");
    assert_eq!(claim(&store, 1).await[0].tenant.as_str(), "a");
    store.submit(vec![of("a")]).await.expect("submitted");
    drop(store);
    let store = open(directory.path(), &clock).await;
    let tenants: Vec<_> = claim(&store, 9).await.into_iter().map(|lease| lease.tenant.to_string()).collect();
    assert_eq!(tenants, ["b", "a"]);
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_it() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    let refused = SqliteStore::open(SqliteOptions::new(directory.path())).await.expect_err("in use");
    assert!(matches!(&refused, StoreError::Locked { .. }));
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    drop(store);
    SqliteStore::open(SqliteOptions::new(directory.path())).await.expect("free again");
}

#[tokio::test]
async fn output_that_was_torn_off_is_asked_for_again() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    store.submit(vec![job()]).await.expect("submitted");
    let fence = claim(&store, 1).await[0].fence;
    store.append_output(&fence, chunk(0, b"whole")).await.expect("appended");
    store.append_output(&fence, chunk(5, b"torn")).await.expect("appended");
    drop(store);
    let path = segment(directory.path(), &fence);
    let size = std::fs::metadata(&path).expect("a segment").len();
    std::fs::File::options().write(true).open(&path).expect("a segment").set_len(size - 1).expect("cut");

    let store = open(directory.path(), &clock).await;
    let answer = store.append_output(&fence, chunk(9, b" more")).await.expect("appended");
    assert_eq!(answer, AppendAnswer::Gap { end: 5 });
    let answer = store.append_output(&fence, chunk(5, b"torn more")).await.expect("appended");
    assert_eq!(answer, AppendAnswer::Appended { end: 14 });
    let slice = store.output(fence.job, 1, 0, 1_000).await.expect("read").expect("an attempt");
    let bytes: Vec<u8> = slice
        .records
        .iter()
        .flat_map(|record| match record {
            Record::Data { bytes, .. } => bytes.to_vec(),
            Record::Gap(_) => vec![],
        })
        .collect();
    assert_eq!(bytes, b"wholetorn more");
}

#[tokio::test]
async fn a_job_without_its_output_files_still_has_its_result() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    store.submit(vec![job()]).await.expect("submitted");
    let fence = claim(&store, 1).await[0].fence;
    store.append_output(&fence, chunk(0, &[b'x'; 50_000])).await.expect("appended");
    store.finish(vec![result(fence, Some(chunk(50_000, b"end")))]).await.expect("finished");
    std::fs::remove_dir_all(directory.path().join("output")).expect("deleted");
    let record = store.job(fence.job).await.expect("read").expect("a job");
    assert_eq!((record.state, record.output_bytes), (JobState::Completed, 50_003));
    let slice = store.output(fence.job, 1, 1_000, 1_000).await.expect("read").expect("an attempt");
    assert_eq!(slice.records.iter().collect::<Vec<_>>(), [Record::Gap(49_003)]);
    assert_eq!(store.delete_final(Timestamp(i64::MAX), 9).await.expect("deleted"), 1);
}

#[tokio::test]
async fn little_output_leaves_no_file() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    store.submit(vec![job(), job(), job()]).await.expect("submitted");
    let leases = claim(&store, 3).await;
    let [small, last, large] = [leases[0].fence, leases[1].fence, leases[2].fence];
    store.append_output(&small, chunk(0, b"appended")).await.expect("appended");
    store.append_output(&large, chunk(0, &[b'x'; 50_000])).await.expect("appended");
    assert!(segment(directory.path(), &small).exists());
    store
        .finish(vec![result(small, None), result(last, Some(chunk(0, b"with the result"))), result(large, None)])
        .await
        .expect("finished");
    assert!(!segment(directory.path(), &small).exists() && !segment(directory.path(), &last).exists());
    assert!(segment(directory.path(), &large).exists());
    store.delete_final(Timestamp(i64::MAX), 9).await.expect("deleted");
    assert!(!segment(directory.path(), &large).exists());
}

#[tokio::test]
async fn a_lease_of_an_earlier_process_finishes() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    store.submit(vec![job()]).await.expect("submitted");
    let fence = claim(&store, 1).await[0].fence;
    drop(store);
    let store = open(directory.path(), &clock).await;
    let forged = Fence { lease: LeaseId(Uuid::new_v4()), ..fence };
    let answers = store.finish(vec![result(forged, None), result(fence, None), result(fence, None)]).await;
    let answers = answers.expect("finished");
    assert_eq!(answers[0], FinishAnswer::LeaseLost);
    assert!(matches!(&answers[1], FinishAnswer::Taken(finished) if finished.state == JobState::Completed));
    assert_eq!(answers[2], FinishAnswer::Before(JobState::Completed));
}

#[tokio::test]
async fn a_refused_command_leaves_nothing_and_the_next_goes_on() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    let known = job();
    store.submit(vec![known.clone()]).await.expect("submitted");
    let first = job();
    // The same id again is a fault of the caller that only the database notices, after the first was written.
    assert!(store.submit(vec![first.clone(), known]).await.is_err());
    assert_eq!(store.job(first.id).await.expect("read"), None);
    assert_eq!(store.stats().await.expect("stats").jobs_by_status["pending"], 1);
    store.submit(vec![first.clone()]).await.expect("submitted");
    assert_eq!(claim(&store, 9).await.len(), 2);
}

async fn put(store: &SqliteStore, bytes: &'static [u8]) -> Digest {
    let (upload, digest) = (Uuid::new_v4(), Digest::of(bytes));
    store.append_blob(upload, 0, Bytes::from_static(bytes)).await.expect("appended");
    store.finish_blob(upload, digest, bytes.len() as u64).await.expect("finished");
    digest
}

fn blob(directory: &Path, digest: Digest) -> std::path::PathBuf {
    let text = digest.to_string();
    directory.join("blobs").join(&text[..2]).join(&text[2..])
}

#[tokio::test]
async fn a_blob_whose_file_is_gone_or_torn_counts_as_none_and_can_come_again() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    let digests = [put(&store, b"taken away").await, put(&store, b"torn").await, put(&store, b"whole").await];
    drop(store);
    std::fs::remove_file(blob(directory.path(), digests[0])).expect("removed");
    std::fs::write(blob(directory.path(), digests[1]), b"to").expect("written");
    let store = open(directory.path(), &clock).await;
    let mut sizes = vec![];
    for digest in digests {
        sizes.push(store.touch_blob(digest).await.expect("touched"));
    }
    assert_eq!(sizes, [None, None, Some(5)]);
    for bytes in [&b"taken away"[..], b"torn"] {
        let digest = put(&store, bytes).await;
        assert_eq!(store.read_blob(digest, 0).await.expect("read").as_deref(), Some(bytes));
        assert_eq!(store.touch_blob(digest).await.expect("touched"), Some(bytes.len() as u64));
    }
}

#[tokio::test]
async fn files_that_a_crash_left_without_a_row_are_deleted_and_others_stay() {
    let (directory, clock) = (TempDir::new().expect("a directory"), ManualClock::default());
    let store = open(directory.path(), &clock).await;
    let kept = put(&store, b"kept").await;
    let nameless = blob(directory.path(), Digest::of(b"its row was deleted, then the process died"));
    let foreign = directory.path().join("blobs/ab/notes");
    for path in [&nameless, &foreign] {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, "content").expect("written");
    }
    // Nothing is old enough to go.
    assert_eq!(store.delete_blobs(store.now().await.expect("the time").minus(LEASE)).await.expect("deleted"), 0);
    assert!(!nameless.exists());
    assert!(foreign.exists() && blob(directory.path(), kept).exists());
    assert_eq!(store.touch_blob(kept).await.expect("touched"), Some(4));
}
