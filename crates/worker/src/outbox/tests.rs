//! What the outbox delivers and when it stops, and what becomes of a result that a server cannot read.

use std::collections::BTreeMap;

use executr_api::Outcome;
use executr_api::output::OutputChunk;
use executr_spec::{JobId, LeaseId};
use uuid::Uuid;

use super::*;

fn result(number: u128) -> AttemptResult {
    AttemptResult {
        fence: Fence { job: JobId(Uuid::from_u128(number)), attempt: 1, lease: LeaseId(Uuid::from_u128(number)) },
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        error_message: None,
        retryable: true,
        fails_run: false,
        usage: None,
        steps: Vec::new(),
        output: None,
        output_bytes: 0,
        duration_us: 1,
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    }
}

#[test]
fn a_result_is_reported_until_there_is_a_verdict() {
    let temp = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(temp.path().join("results")).unwrap();
    outbox.put(result(1));
    outbox.put(result(2));
    assert_eq!(outbox.report(), [result(1), result(2)]);
    assert!(!outbox.has_ready() && outbox.report().is_empty());
    outbox.remove(&result(1).fence);
    outbox.report_again(&[result(1).fence, result(2).fence]);
    assert_eq!(outbox.report(), [result(2)]);
    outbox.remove(&result(2).fence);
    assert!(outbox.is_empty());
}

#[test]
fn what_a_dead_process_saved_the_next_one_delivers_and_nobody_else() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("results");
    let mut first = Outbox::open(root.clone()).unwrap();
    first.put(result(1));
    first.save();
    first.put(result(2));
    assert!(Outbox::open(root.clone()).unwrap().is_empty(), "the first one lives");
    drop(first);
    let mut second = Outbox::open(root.clone()).unwrap();
    assert_eq!(second.report(), [result(1)], "what wasn't saved is gone");
    second.remove(&result(1).fence);
    drop(second);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing stays behind");
}

#[test]
fn a_report_brings_no_more_than_the_server_takes() {
    let temp = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(temp.path().join("results")).unwrap();
    let mut writer = executr_api::output::RecordWriter::default();
    writer.push(executr_api::output::Stream::Stdout, &[b'x'; 32 << 10]);
    let records = writer.take();
    for number in 0..1_000 {
        let large = (number < 200).then(|| OutputChunk { offset: 0, records: records.clone() });
        outbox.put(AttemptResult { output: large, ..result(number) });
    }
    let mut counts = Vec::new();
    while outbox.has_ready() {
        counts.push(outbox.report().len());
    }
    assert_eq!(counts.iter().sum::<usize>(), 1_000, "{counts:?}");
    assert!(counts[0] <= 128 && counts.iter().all(|count| *count <= MOST_RESULTS), "{counts:?}");
}

#[test]
fn the_result_that_makes_a_report_unreadable_is_found_and_put_aside() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("results");
    let mut outbox = Outbox::open(root.clone()).unwrap();
    let culprit = result(7).fence;
    for number in 0..20 {
        outbox.put(result(number));
    }
    for _ in 0..100 {
        let suspect = outbox.suspect();
        let fences: Vec<_> = outbox.report().iter().map(|result| result.fence).collect();
        if fences.contains(&culprit) {
            outbox.report_again(&fences);
            assert!(outbox.report_was_refused(&fences));
            continue;
        }
        fences.iter().for_each(|fence| outbox.remove(fence));
        outbox.report_was_taken(suspect);
    }
    assert!(outbox.is_empty() && !outbox.has_ready());
    assert!(root.join(culprit.lease.to_string()).with_extension("refused").exists());
    drop(outbox);
    assert!(Outbox::open(root).unwrap().is_empty());
}

#[test]
fn a_server_that_refuses_everything_costs_no_result() {
    let temp = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(temp.path().join("results")).unwrap();
    outbox.put(result(1));
    for _ in 0..3 {
        let fences: Vec<_> = outbox.report().iter().map(|result| result.fence).collect();
        outbox.report_again(&fences);
        assert!(outbox.report_was_refused(&fences));
        assert!(outbox.report().is_empty() && !outbox.report_was_refused(&[]));
    }
    assert_eq!(outbox.len(), 1);
}

#[test]
fn output_of_a_result_nobody_wants_is_not_delivered() {
    let temp = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(temp.path().join("results")).unwrap();
    let fence = result(1).fence;
    outbox.put_before_output(result(1), String::new()).unwrap();
    outbox.save();
    assert!(outbox.entries[&fence].file.is_none(), "a result without its output would say that there was none");
    let mut unwanted = outbox.output_saved(&fence).unwrap();
    outbox.save();
    assert!(outbox.entries[&fence].file.is_some() && outbox.report().is_empty());
    assert_eq!(unwanted.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    outbox.remove(&fence);
    assert_eq!(unwanted.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    assert!(outbox.output_saved(&fence).is_none());
}

#[test]
fn half_a_result_is_none() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("dead");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.json"), "{\"result\":").unwrap();
    fs::write(folder.join("b.part"), "{}").unwrap();
    assert!(Outbox::open(temp.path().to_owned()).unwrap().is_empty());
}
