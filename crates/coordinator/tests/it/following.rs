//! Output: appending, following, showing.

use std::time::Duration;

use executr_api::output::{RecordWriter, Stream};
use executr_api::{Client, ErrorCode, JobStatus, Outcome, OutputEvent, OutputFollow, OutputStream, WorkerApi};
use executr_coordinator::Coordinator;
use executr_spec::JobId;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use crate::support::{
    Worker, append, chunk, client, embedded, result, settle, start, start_on, store, submit, submit_plain,
};

/// What a reader has seen, as text: `#n` for an attempt, the bytes, `!status` for the end.
fn text(event: OutputEvent) -> String {
    match event {
        OutputEvent::Attempt(attempt) => format!("#{attempt} "),
        OutputEvent::Chunk(chunk) => chunk
            .records
            .iter()
            .map(|record| match record {
                executr_api::output::Record::Data { bytes, .. } => String::from_utf8_lossy(&bytes).into_owned(),
                executr_api::output::Record::Gap(skipped) => format!("[{skipped}]"),
            })
            .collect(),
        OutputEvent::End(status) => format!("!{status}"),
    }
}

/// All that a stream brings without time passing.
async fn now(stream: &mut OutputStream) -> String {
    let mut seen = String::new();
    loop {
        settle().await;
        match stream.next().now_or_never() {
            Some(Some(event)) => seen += &text(event.unwrap()),
            Some(None) => return seen + ".",
            None => return seen,
        }
    }
}

async fn follow(coordinator: &Coordinator, id: JobId, asked: OutputFollow) -> OutputStream {
    client(coordinator).output(id, asked).await.unwrap()
}

const LIVE: OutputFollow = OutputFollow { attempt: None, offset: 0, follow: true };

#[tokio::test(start_paused = true)]
async fn a_follower_sees_each_byte_as_it_comes_and_the_end_after_the_last() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let begin = Instant::now();
    let mut reader = follow(&coordinator, id, LIVE).await;
    assert_eq!(now(&mut reader).await, "");
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    let fence = worker.held[0];
    assert_eq!(now(&mut reader).await, "#1 ");
    assert_eq!(append(&coordinator, &fence, 0, "one ").await.unwrap(), 4);
    assert_eq!(now(&mut reader).await, "one ");
    assert_eq!(append(&coordinator, &fence, 0, "one two ").await.unwrap(), 8, "a resend brings only what is new");
    assert_eq!(now(&mut reader).await, "two ");
    let mut last = result(fence, Outcome::Succeeded);
    last.output = Some(chunk(8, Stream::Stderr, b"three"));
    worker.held.clear();
    worker.finished.push(last);
    worker.exchange(&coordinator).await;
    assert_eq!(now(&mut reader).await, "three!completed.");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let late = OutputFollow { offset: 5, ..LIVE };
    assert_eq!(now(&mut follow(&coordinator, id, late).await).await, "#1 wo three!completed.");
}

#[tokio::test(start_paused = true)]
async fn a_follower_goes_from_attempt_to_attempt() {
    let store = store();
    let coordinator = start(&store).await;
    let retried = r#"{"steps":[{"argv":["true"]}],"max_retries":1,"backoff":{"min_time":"1s"}}"#;
    let id = submit(&coordinator, retried).await.id;
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    worker.exchange(&coordinator).await;
    append(&coordinator, &worker.held[0], 0, "first ").await.unwrap();
    let mut reader = follow(&coordinator, id, LIVE).await;
    let mut only = follow(&coordinator, id, OutputFollow { attempt: Some(1), ..LIVE }).await;
    worker.end(worker.held[0], Outcome::Failed);
    worker.exchange(&coordinator).await;
    assert_eq!(now(&mut reader).await, "#1 first ");
    assert_eq!(now(&mut only).await, "#1 first !pending.", "one attempt was asked for, and it has ended");
    worker.exchange(&coordinator).await;
    append(&coordinator, &worker.held[0], 0, "second ").await.unwrap();
    assert_eq!(now(&mut reader).await, "#2 second ");
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(now(&mut reader).await, "!completed.");
}

#[tokio::test(start_paused = true)]
async fn without_following_what_is_there_is_shown_and_how_the_job_stands() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let all = OutputFollow::default();
    assert_eq!(now(&mut follow(&coordinator, id, all).await).await, "!pending.");
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    append(&coordinator, &worker.held[0], 0, "so far").await.unwrap();
    assert_eq!(now(&mut follow(&coordinator, id, all).await).await, "#1 so far!running.");
    for (job, attempt) in [(id, 2), (id, 0), (JobId(uuid::Uuid::nil()), 1)] {
        let missing = client(&coordinator).output(job, OutputFollow { attempt: Some(attempt), ..all }).await;
        assert_eq!(missing.err().unwrap().code, ErrorCode::NotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_cancelled_before_it_ran_ends_its_stream() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut reader = follow(&coordinator, id, LIVE).await;
    assert_eq!(now(&mut reader).await, "");
    client(&coordinator).cancel_pending(id).await.unwrap();
    assert_eq!(now(&mut reader).await, "!cancelled.");
}

#[tokio::test(start_paused = true)]
async fn output_is_taken_in_order_and_only_under_its_lease() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 1).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    let fence = worker.held[0];
    let error = append(&coordinator, &fence, 10, "too far").await.unwrap_err();
    assert_eq!((error.code, error.context["end"].as_str()), (ErrorCode::OutputGap, "0"));
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(append(&coordinator, &fence, 0, "late").await.unwrap_err().code, ErrorCode::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_makes_nobody_hold_more_than_three_slices() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    let part = vec![b'x'; 64 << 10];
    for at in 0..64 {
        let chunk = chunk(at * part.len() as u64, Stream::Stdout, &part);
        coordinator.append_output(&worker.held[0], "", chunk).await.unwrap();
    }
    store.take_calls();
    let mut reader = follow(&coordinator, id, LIVE).await;
    let (mut read, mut looks, mut chunks) = (0, 0, 0);
    while read < 4 << 20 {
        settle().await;
        looks += store.take_calls().get("output").copied().unwrap_or_default();
        assert!(looks <= chunks + 2, "two are read ahead: {looks} looks for {chunks} chunks");
        match reader.next().await.unwrap().unwrap() {
            OutputEvent::Chunk(chunk) => {
                assert!(chunk.records.as_bytes().len() <= 400 << 10, "about 256 KiB and one record");
                assert_eq!(chunk.offset, read);
                read = chunk.end();
                chunks += 1;
            }
            OutputEvent::Attempt(_) => {}
            OutputEvent::End(status) => panic!("ended: {status}"),
        }
    }
}

#[tokio::test]
async fn readers_who_ask_for_no_more_keep_nobody_from_reading() {
    let (_directory, store) = embedded().await;
    let coordinator = start_on(store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    Worker::new("w", 1).exchange(&coordinator).await;
    let mut readers = Vec::new();
    for _ in 0..64 {
        readers.push(follow(&coordinator, id, LIVE).await);
    }
    // Each is told which attempt it is about, is asked for what is next, and then its reader has other things to do.
    for reader in &mut readers {
        reader.next().await.unwrap().unwrap();
    }
    for reader in &mut readers {
        assert!(futures_util::poll!(reader.next()).is_pending());
    }
    let job = tokio::time::timeout(Duration::from_secs(60), client(&coordinator).job(id)).await;
    assert_eq!(job.expect("it isn't kept from reading").unwrap().id, id);
}

#[tokio::test(start_paused = true)]
async fn a_job_shows_its_output_by_stream_and_long_ones_shortened() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let view = client(&coordinator).job(id).await.unwrap();
    assert_eq!((view.stdout, view.stderr), (None, None));
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    let mut end = 0;
    for part in 0..4 {
        let mut writer = RecordWriter::default();
        let lines: String = (part * 10_000..(part + 1) * 10_000).map(|line| format!("{line:>31}\n")).collect();
        writer.push(Stream::Stdout, lines.as_bytes());
        writer.push(Stream::Stderr, b"\xffoh\n");
        let chunk = executr_api::output::OutputChunk { offset: end, records: writer.take() };
        end = coordinator.append_output(&worker.held[0], "", chunk).await.unwrap();
    }
    worker.end_all();
    worker.exchange(&coordinator).await;
    let view = client(&coordinator).job(id).await.unwrap();
    let stdout = view.stdout.unwrap();
    assert!(stdout.len() <= 1 << 20 && stdout.len() > (1 << 20) - 32, "{}", stdout.len());
    assert!(stdout.contains("\n[... shortened: 1280000 bytes, 40000 lines in all ...]\n"));
    assert!(stdout.ends_with("39999\n"));
    assert_eq!(view.stderr.unwrap(), "\u{fffd}oh\n".repeat(4));
    assert_eq!((view.status, view.output_bytes), (JobStatus::Completed, end));
    store.take_calls();
    assert_eq!(client(&coordinator).job(id).await.unwrap().stdout.unwrap(), stdout);
    assert_eq!(store.take_calls().get("output"), None, "what was read through once is remembered");
    let listed = client(&coordinator).jobs(Default::default()).await.unwrap();
    assert_eq!((&listed[0].stdout, &listed[0].attempts), (&None, &None));
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_an_error_when_the_coordinator_stops() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut reader = follow(&coordinator, id, LIVE).await;
    assert_eq!(now(&mut reader).await, "");
    coordinator.shutdown().await;
    let error = reader.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(reader.next().await.is_none());
}
