//! Output on its way while a job runs.

use std::time::Duration;

use executr_api::output::Record;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_there_while_the_job_runs() {
    let rig = Rig::start(|_| ()).await;
    let here = rig.directory.path().display().to_string();
    let fence =
        rig.coordinator.submit_run(&format!("echo first; while ! [ -e {here}/go ]; do sleep 0.05; done; echo last"));
    rig.coordinator.until("live output", |state| state.output.get(&fence).map(|_| ())).await;
    assert_eq!(rig.coordinator.text(fence), "first\n");
    std::fs::write(format!("{here}/go"), "").unwrap();
    rig.coordinator.result(fence).await;
    assert_eq!(rig.coordinator.text(fence), "first\nlast\n");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_in_order() {
    let rig = Rig::start(|_| ()).await;
    let fence = rig.coordinator.submit_run("seq 1 400000; seq 1 200000 >&2");
    let result = rig.coordinator.result(fence).await;
    let expected = |to: u32| (1..=to).map(|n| format!("{n}\n")).collect::<String>();
    let [mut out, mut err] = [Vec::new(), Vec::new()];
    for record in rig.coordinator.output(fence) {
        match record {
            Record::Data { stream: executr_api::output::Stream::Stdout, bytes } => out.extend_from_slice(&bytes),
            Record::Data { bytes, .. } => err.extend_from_slice(&bytes),
            Record::Gap(skipped) => panic!("{skipped} bytes are missing"),
        }
    }
    assert!(out == expected(400_000).as_bytes() && err == expected(200_000).as_bytes());
    assert_eq!(result.output_bytes, (out.len() + err.len()) as u64);
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_cap_first_and_last_are_kept_with_the_gap_between() {
    let rig = Rig::start(|options| options.output.cap = 400_000).await;
    let fence = rig.coordinator.submit_run("head -c 300000 /dev/zero | tr '\\0' a; head -c 500000 /dev/zero | tr '\\0' b; head -c 100000 /dev/zero | tr '\\0' c");
    let result = rig.coordinator.result(fence).await;
    assert_eq!(result.output_bytes, 900_000);
    assert_eq!(rig.coordinator.text(fence), format!("{}[500000]{}", "a".repeat(300_000), "c".repeat(100_000)));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_does_not_wait_for_a_server_that_is_away() {
    let rig = Rig::start(|_| ()).await;
    let here = rig.directory.path().display().to_string();
    let script = format!(
        "touch {here}/started; while ! [ -e {here}/go ]; do sleep 0.05; done; seq 1 2000000; touch {here}/done; while ! [ -e {here}/end ]; do sleep 0.05; done"
    );
    let fence = rig.coordinator.submit_run(&script);
    let there = |name: &str| std::fs::exists(format!("{here}/{name}")).unwrap().then_some(());
    rig.coordinator.until("its start", |_| there("started")).await;
    rig.coordinator.change(|state| state.away = true);
    std::fs::write(format!("{here}/go"), "").unwrap();
    rig.coordinator.until("all to be written though nobody takes it", |_| there("done")).await;
    rig.coordinator.change(|state| state.away = false);
    std::fs::write(format!("{here}/end"), "").unwrap();
    rig.coordinator.result(fence).await;
    let expected: String = (1..=2_000_000).map(|n| format!("{n}\n")).collect();
    assert!(rig.coordinator.text(fence) == expected);
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_forgot_is_sent_again() {
    let rig = Rig::start(|options| options.output.gather = Duration::from_millis(1)).await;
    let here = rig.directory.path().display().to_string();
    let fence = rig.coordinator.submit_run(&format!("echo one two; while ! [ -e {here}/go ]; do sleep 0.05; done; echo three; while ! [ -e {here}/end ]; do sleep 0.05; done"));
    rig.coordinator.until("the first", |state| state.output.get(&fence).map(|_| ())).await;
    rig.coordinator.change(|state| state.forget_output_after = Some(4));
    std::fs::write(format!("{here}/go"), "").unwrap();
    let end = "one two\nthree\n".len() as u64;
    rig.coordinator
        .until("all of it", |state| {
            let last = state.output.get(&fence).and_then(|chunks| chunks.last());
            last.is_some_and(|chunk| chunk.end() == end).then_some(())
        })
        .await;
    assert_eq!(rig.coordinator.text(fence), "one two\nthree\n");
    std::fs::write(format!("{here}/end"), "").unwrap();
    rig.coordinator.result(fence).await;
    rig.drain().await;
}
