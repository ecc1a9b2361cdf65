//! Output of attempts.

use executr_api::output::{OutputChunk, Record, RecordWriter, Records, Stream};
use executr_api::{AttemptResult, Fence, JobState, Outcome};
use executr_spec::{JobId, LeaseId};
use executr_store::{AppendAnswer, FinishAnswer, OutputSlice};
use uuid::Uuid;

use super::Harness;
use super::stage::{Stage, chunk, job, result};

impl<H: Harness> Stage<H> {
    async fn append(&self, fence: Fence, chunk: OutputChunk) -> AppendAnswer {
        self.store.append_output(&fence, chunk).await.expect("appended")
    }

    async fn slice(&self, fence: Fence, offset: u64, max_bytes: usize) -> OutputSlice {
        let slice = self.store.output(fence.job, fence.attempt, offset, max_bytes).await.expect("read");
        slice.expect("an attempt")
    }

    /// Everything from `offset` on, read in pieces of `max_bytes`.
    async fn read(&self, fence: Fence, mut offset: u64, max_bytes: usize) -> Vec<Record> {
        let mut all = vec![];
        loop {
            let slice = self.slice(fence, offset, max_bytes).await;
            if slice.records.is_empty() {
                assert!(offset >= slice.end, "nothing was read at {offset} before the end at {}", slice.end);
                return merged(all);
            }
            offset += slice.records.span();
            all.extend(slice.records.iter());
        }
    }
}

/// The same output in as few records as possible, however it was cut.
pub(crate) fn merged(records: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let mut out: Vec<Record> = vec![];
    for record in records {
        match (out.last_mut(), record) {
            (Some(Record::Gap(before)), Record::Gap(more)) => *before += more,
            (Some(Record::Data { stream: a, bytes }), Record::Data { stream: b, bytes: more }) if *a == b => {
                *bytes = [&bytes[..], &more[..]].concat().into();
            }
            (_, record) => out.push(record),
        }
    }
    out
}

fn stdout(bytes: &[u8]) -> Record {
    Record::Data { stream: Stream::Stdout, bytes: bytes.to_vec().into() }
}

fn stderr(bytes: &[u8]) -> Record {
    Record::Data { stream: Stream::Stderr, bytes: bytes.to_vec().into() }
}

fn records(records: &[Record]) -> Records {
    let mut writer = RecordWriter::default();
    for record in records {
        match record {
            Record::Data { stream, bytes } => writer.push(*stream, bytes),
            Record::Gap(skipped) => writer.gap(*skipped),
        }
    }
    writer.take()
}

pub(crate) async fn appended_and_read_from_anywhere<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    assert_eq!(stage.append(fence, chunk(0, b"hello ")).await, AppendAnswer::Appended { end: 6 });
    let more = OutputChunk { offset: 6, records: records(&[stderr(b"oh "), stdout(b"world")]) };
    assert_eq!(stage.append(fence, more).await, AppendAnswer::Appended { end: 14 });
    assert_eq!(stage.read(fence, 0, 1000).await, [stdout(b"hello "), stderr(b"oh "), stdout(b"world")]);
    assert_eq!(stage.read(fence, 4, 1000).await, [stdout(b"o "), stderr(b"oh "), stdout(b"world")]);
    assert_eq!(stage.read(fence, 8, 1000).await, [stderr(b" "), stdout(b"world")]);
    let slice = stage.slice(fence, 14, 1000).await;
    assert_eq!((slice.records.is_empty(), slice.end, slice.sealed), (true, 14, false));
    let slice = stage.slice(fence, 99, 1000).await;
    assert_eq!((slice.records.is_empty(), slice.end), (true, 14));
}

pub(crate) async fn a_resend_changes_nothing<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    for _ in 0..3 {
        assert_eq!(stage.append(fence, chunk(0, b"abc")).await, AppendAnswer::Appended { end: 3 });
    }
    stage.append(fence, chunk(3, b"def")).await;
    assert_eq!(stage.append(fence, chunk(0, b"abc")).await, AppendAnswer::Appended { end: 6 });
    assert_eq!(stage.append(fence, chunk(6, b"")).await, AppendAnswer::Appended { end: 6 });
    assert_eq!(stage.read(fence, 0, 1000).await, [stdout(b"abcdef")]);
}

pub(crate) async fn an_overlap_adds_what_is_new<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.append(fence, chunk(0, b"abcd")).await;
    assert_eq!(stage.append(fence, chunk(2, b"cdef")).await, AppendAnswer::Appended { end: 6 });
    assert_eq!(stage.read(fence, 0, 1000).await, [stdout(b"abcdef")]);
}

pub(crate) async fn a_gap_is_refused<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.append(fence, chunk(0, b"abc")).await;
    assert_eq!(stage.append(fence, chunk(4, b"xyz")).await, AppendAnswer::Gap { end: 3 });
    assert_eq!(stage.read(fence, 0, 1000).await, [stdout(b"abc")]);
}

pub(crate) async fn not_without_the_lease<H: Harness>(stage: Stage<H>) {
    let old = stage.running(job()).await;
    stage.append(old, chunk(0, b"old")).await;
    let forged = Fence { lease: LeaseId(Uuid::new_v4()), ..old };
    assert_eq!(stage.append(forged, chunk(0, b"x")).await, AppendAnswer::LeaseLost);
    stage.lose_leases().await;
    assert_eq!(stage.append(old, chunk(3, b"er")).await, AppendAnswer::Appended { end: 5 }, "not revoked yet");
    let new = stage.claim_one().await;
    assert_eq!(stage.append(old, chunk(5, b"x")).await, AppendAnswer::LeaseLost);
    stage.append(new, chunk(0, b"new")).await;
    assert_eq!(stage.read(old, 0, 1000).await, [stdout(b"older")]);
    assert!(stage.slice(old, 0, 1000).await.sealed);
    assert_eq!(stage.attempts(old.job).await[0].output_bytes, 5);
    stage.succeed(new).await;
    assert_eq!(stage.append(new, chunk(3, b"x")).await, AppendAnswer::LeaseLost);
}

pub(crate) async fn sealed_at_the_end<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.append(fence, chunk(0, b"abc")).await;
    stage.succeed(fence).await;
    let slice = stage.slice(fence, 1, 1000).await;
    assert_eq!((slice.end, slice.sealed), (3, true));
    assert_eq!(stage.read(fence, 1, 1000).await, [stdout(b"bc")]);
    assert_eq!(stage.job(fence.job).await.output_bytes, 3);
    assert_eq!(stage.attempts(fence.job).await[0].output_bytes, 3);
}

pub(crate) async fn with_the_result<H: Harness>(stage: Stage<H>) {
    for appended in [&b""[..], b"abc", b"abcdef"] {
        let fence = stage.running(job()).await;
        stage.append(fence, chunk(0, appended)).await;
        let output = Some(chunk(appended.len().min(3) as u64, &b"abcdef"[appended.len().min(3)..]));
        let answer = stage.end(AttemptResult { output, output_bytes: 6, ..result(fence, Outcome::Succeeded) }).await;
        assert!(matches!(answer, FinishAnswer::Taken(finished) if finished.state == JobState::Completed));
        assert_eq!(stage.read(fence, 0, 1000).await, [stdout(b"abcdef")]);
        assert_eq!(stage.job(fence.job).await.output_bytes, 6);
    }
}

pub(crate) async fn the_last_chunk_may_leave_a_gap<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.append(fence, chunk(0, b"abc")).await;
    let output = Some(chunk(10, b"end"));
    stage.end(AttemptResult { output, output_bytes: 13, ..result(fence, Outcome::Failed) }).await;
    assert_eq!(stage.read(fence, 0, 1000).await, [stdout(b"abc"), Record::Gap(7), stdout(b"end")]);
    assert_eq!(stage.job(fence.job).await.output_bytes, 13);
}

pub(crate) async fn any_bytes_survive<H: Harness>(stage: Stage<H>) {
    let bytes: Vec<u8> = (0..=255).chain([0xff, 0xfe, 0, b'\n', 0xc3, 0x28]).collect();
    let fence = stage.running(job()).await;
    stage.append(fence, chunk(0, &bytes)).await;
    assert_eq!(stage.read(fence, 0, 1000).await, [stdout(&bytes)]);
    stage.succeed(fence).await;
    assert_eq!(stage.read(fence, 0, 1000).await, [stdout(&bytes)]);
}

pub(crate) async fn gap_records_count<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    let gap = 5_000_000_000;
    let all = [stdout(b"a"), Record::Gap(gap), stderr(b"z")];
    let end = gap + 2;
    let chunk = OutputChunk { offset: 0, records: records(&all) };
    assert_eq!(stage.append(fence, chunk).await, AppendAnswer::Appended { end });
    assert_eq!(stage.read(fence, 0, 1000).await, all);
    assert_eq!(stage.read(fence, 2, 1000).await, [Record::Gap(gap - 1), stderr(b"z")]);
    assert_eq!(stage.read(fence, gap + 1, 1000).await, [stderr(b"z")]);
    stage.succeed(fence).await;
    assert_eq!(stage.job(fence.job).await.output_bytes, end);
    assert_eq!(stage.read(fence, gap, 1000).await, [Record::Gap(1), stderr(b"z")]);
}

pub(crate) async fn each_attempt_has_its_own<H: Harness>(stage: Stage<H>) {
    let one = stage.running(job()).await;
    stage.append(one, chunk(0, b"one")).await;
    stage.give_back(one).await;
    assert_eq!(stage.job(one.job).await.output_bytes, 3);
    let two = stage.claim_one().await;
    assert_eq!(stage.job(one.job).await.output_bytes, 0);
    stage.append(two, chunk(0, b"number two")).await;
    assert_eq!(stage.read(one, 0, 1000).await, [stdout(b"one")]);
    assert_eq!(stage.read(two, 0, 1000).await, [stdout(b"number two")]);
}

pub(crate) async fn reading_in_small_pieces<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    let mut expected = vec![];
    for n in 0..100_u64 {
        let record = if n % 2 == 0 { stdout(&[n as u8; 10]) } else { stderr(&[n as u8; 10]) };
        stage.append(fence, OutputChunk { offset: n * 10, records: records(std::slice::from_ref(&record)) }).await;
        expected.push(record);
    }
    let slice = stage.slice(fence, 0, 1).await;
    assert_eq!(slice.records.iter().count(), 1, "at least one record, and not many more");
    assert_eq!(stage.read(fence, 0, 1).await, expected);
    stage.succeed(fence).await;
    assert_eq!(stage.read(fence, 0, 40).await, expected);
    assert_eq!(stage.read(fence, 500, 40).await, expected[50..]);
}

pub(crate) async fn no_output_and_no_attempt<H: Harness>(stage: Stage<H>) {
    let id = stage.submit_one(job()).await;
    let none = |id, attempt| stage.store.output(id, attempt, 0, 100);
    assert_eq!(none(JobId(Uuid::new_v4()), 1).await.expect("read"), None);
    assert_eq!(none(id, 0).await.expect("read"), None);
    assert_eq!(none(id, 1).await.expect("read"), None);
    let fence = stage.claim_one().await;
    let slice = stage.slice(fence, 0, 100).await;
    assert_eq!((slice.records.is_empty(), slice.end, slice.sealed), (true, 0, false));
    stage.succeed(fence).await;
    let slice = stage.slice(fence, 0, 100).await;
    assert_eq!((slice.records.is_empty(), slice.end, slice.sealed), (true, 0, true));
    assert_eq!(none(id, 2).await.expect("read"), None);
}

pub(crate) async fn large_output<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    let part: Vec<u8> = (0..300_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    for n in 0..20_u64 {
        let offset = n * part.len() as u64;
        assert_eq!(
            stage.append(fence, chunk(offset, &part)).await,
            AppendAnswer::Appended { end: offset + part.len() as u64 }
        );
    }
    let end = 20 * part.len() as u64;
    for sealed in [false, true] {
        for offset in [0, 299_999, 3_000_001, 5_999_000, end - 1] {
            let expected: Vec<u8> = (offset..end).map(|n| part[n as usize % part.len()]).collect();
            let got = stage.read(fence, offset, 100_000).await;
            assert!(got == [stdout(&expected)], "from {offset}, sealed: {sealed}");
        }
        if !sealed {
            stage.succeed(fence).await;
        }
    }
    assert_eq!(stage.job(fence.job).await.output_bytes, end);
}
