//! Output as events and as bytes.

use executr_api::Lease;
use executr_api::output::{OutputChunk, RecordWriter, Stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::events::Events;
use crate::running::{PATIENCE, Server, finish, read, report, success};

/// Records of one stream.
fn chunk(offset: u64, stream: Stream, bytes: &[u8]) -> OutputChunk {
    let mut writer = RecordWriter::default();
    writer.push(stream, bytes);
    OutputChunk { offset, records: writer.take() }
}

async fn append(server: &Server, lease: &Lease, chunk: &OutputChunk) -> (u16, Value) {
    let fence = &lease.fence;
    let query = format!("attempt={}&lease={}&offset={}", fence.attempt, fence.lease, chunk.offset);
    let request = server.request(Method::POST, &format!("/worker/jobs/{}/output?{query}", fence.job));
    let (status, body) = read(request.body(chunk.records.as_bytes().clone())).await;
    (status.as_u16(), body)
}

/// The events of an attempt's output.
async fn events(server: &Server, lease: &Lease, query: &str, last: Option<&str>) -> Events {
    Events::of(server, &format!("/jobs/{}/output?{query}", lease.fence.job), last).await
}

/// The output up to the end, and the ids on the way.
async fn rest(mut events: Events) -> (Vec<u8>, Vec<String>, String) {
    let (mut bytes, mut ids) = (Vec::new(), Vec::new());
    while let Some((name, id, data)) = events.next().await {
        match name.as_str() {
            "output" => {
                let chunk: OutputChunk = serde_json::from_value(data).unwrap();
                for record in chunk.records.iter() {
                    if let executr_api::output::Record::Data { bytes: more, .. } = record {
                        bytes.extend_from_slice(&more);
                    }
                }
                ids.push(id);
            }
            "end" => return (bytes, ids, data["status"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }
    panic!("the stream broke off");
}

#[tokio::test]
async fn output_is_seen_while_the_job_runs_and_from_any_position() {
    let server = Server::start().await;
    server.submit().await;
    let mut worker = report("w");
    let lease = server.take(&mut worker).await;

    let mut live = events(&server, &lease, "follow=true", None).await;
    assert_eq!(append(&server, &lease, &chunk(0, Stream::Stdout, b"hello ")).await, (200, json!({"end": 6})));
    assert_eq!(live.next().await.unwrap(), ("attempt".into(), "1:0".into(), json!({"attempt": 1})));
    let (name, id, data) = live.next().await.unwrap();
    assert_eq!((name.as_str(), id.as_str(), &data["offset"]), ("output", "1:6", &json!(0)));

    // Bytes that are no text survive.
    assert_eq!(append(&server, &lease, &chunk(6, Stream::Stderr, &[0xff, 0])).await.0, 200);
    // A resend changes nothing; a gap is refused with where to go on.
    assert_eq!(append(&server, &lease, &chunk(0, Stream::Stdout, b"hello ")).await, (200, json!({"end": 8})));
    let (status, error) = append(&server, &lease, &chunk(100, Stream::Stdout, b"x")).await;
    assert_eq!((status, &error["code"], &error["context"]["end"]), (409, &json!("output_gap"), &json!("8")));

    let mut result = success(&lease);
    result.output_bytes = 8;
    finish(&server, &mut worker, result).await;
    let (last, _, status) = rest(live).await;
    assert_eq!((last.as_slice(), status.as_str()), (&[0xff, 0][..], "completed"));

    for (query, last, expected) in [
        ("", None, &b"hello \xff\0"[..]),
        ("offset=4", None, b"o \xff\0"),
        ("follow=true", Some("1:6"), b"\xff\0"),
        ("", Some("1:7"), b"\0"),
        ("attempt=1&offset=8", None, b""),
    ] {
        let (bytes, _, status) = rest(events(&server, &lease, query, last).await).await;
        assert_eq!((bytes.as_slice(), status.as_str()), (expected, "completed"), "{query} {last:?}");
    }
    assert_eq!(append(&server, &lease, &chunk(8, Stream::Stdout, b"late")).await.0, 409);
}

#[tokio::test]
async fn plain_output_can_be_had_by_stream() {
    let server = Server::start().await;
    let job = server.submit().await;
    let mut worker = report("w");
    let lease = server.take(&mut worker).await;
    append(&server, &lease, &chunk(0, Stream::Stdout, b"out")).await;
    append(&server, &lease, &chunk(3, Stream::Stderr, b"err")).await;
    finish(&server, &mut worker, success(&lease)).await;
    for (query, expected) in [("", "outerr"), ("?stream=stdout", "out"), ("?stream=stderr&follow=true", "err")] {
        let request = server.request(Method::GET, &format!("/jobs/{}/output{query}", job.id));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/octet-stream");
        assert_eq!(response.bytes().await.unwrap(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_follower_sees_the_attempts_that_come_later() {
    let server = Server::start().await;
    let retried = json!({
        "steps": [{"run": "true"}], "max_retries": 2, "backoff": {"kind": "constant", "min_time": "1ms"},
    });
    server.post("/jobs", retried).await;
    let mut worker = report("w");
    let mut follower: Option<Events> = None;
    let mut leases = Vec::new();
    for number in 1..=3 {
        let lease = server.take(&mut worker).await;
        assert_eq!(lease.fence.attempt, number);
        let text = format!("attempt {number}");
        append(&server, &lease, &chunk(0, Stream::Stdout, text.as_bytes())).await;
        if follower.is_none() {
            follower = Some(events(&server, &lease, "follow=true", None).await);
        }
        let mut result = success(&lease);
        if number < 3 {
            result.outcome = executr_api::Outcome::Failed;
            result.exit_code = Some(1);
        }
        finish(&server, &mut worker, result).await;
        leases.push(lease);
    }
    let (bytes, _, status) = rest(follower.unwrap()).await;
    let all = "attempt 1attempt 2attempt 3";
    assert_eq!((String::from_utf8(bytes).unwrap().as_str(), status.as_str()), (all, "completed"));
    // One whose connection broke within the first attempt gets what it missed of all three.
    let (bytes, ids, _) = rest(events(&server, &leases[0], "follow=true", Some("1:8")).await).await;
    assert_eq!(String::from_utf8(bytes).unwrap(), "1attempt 2attempt 3");
    assert_eq!(ids, ["1:9", "2:9", "3:9"]);
}

#[tokio::test]
async fn a_slow_reader_stalls_nobody_and_loses_nothing() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: u64 = 24;
    let server = Server::start().await;
    server.submit().await;
    let mut worker = report("w");
    let lease = server.take(&mut worker).await;
    let slow = events(&server, &lease, "follow=true", None).await;
    for number in 0..CHUNKS {
        let bytes = vec![number as u8; CHUNK];
        let chunk = chunk(number * CHUNK as u64, Stream::Stdout, &bytes);
        assert_eq!(timeout(PATIENCE, append(&server, &lease, &chunk)).await.unwrap().0, 200);
    }
    let mut result = success(&lease);
    result.output_bytes = CHUNKS * CHUNK as u64;
    finish(&server, &mut worker, result).await;
    let (bytes, _, _) = rest(slow).await;
    assert_eq!(bytes.len() as u64, CHUNKS * CHUNK as u64);
    assert!(bytes.chunks(CHUNK).enumerate().all(|(number, part)| part.iter().all(|byte| *byte == number as u8)));
}

#[tokio::test]
async fn records_that_are_none_are_refused() {
    let server = Server::start().await;
    server.submit().await;
    let mut worker = report("w");
    let lease = server.take(&mut worker).await;
    let fence = &lease.fence;
    let query = format!("attempt=1&lease={}&offset=0", fence.lease);
    let request = server.request(Method::POST, &format!("/worker/jobs/{}/output?{query}", fence.job));
    let (status, body) = read(request.body("no records")).await;
    assert_eq!((status.as_u16(), &body["code"]), (400, &json!("bad_request")));
}
