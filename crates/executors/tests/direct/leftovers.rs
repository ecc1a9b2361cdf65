//! What is left of containers, and who removes it.

use std::path::Path;
use std::time::{Duration, Instant};

use executr_executors::contract::{ExecutorError, Workspace};
use executr_executors::oci::{ContainerError, OciSweeper};
use executr_executors::sweep::Sweeper;
use serde_json::json;

use crate::conformance::rig::{gather, plan, sh};
use crate::rig::{IMAGE, host, open};

const DEADLINE: Duration = Duration::from_secs(30);

fn containers(state: &Path) -> usize {
    std::fs::read_dir(state.join("containers")).map_or(0, |entries| entries.count())
}

/// Processes that have this in their arguments.
fn processes(word: &Path) -> Vec<i32> {
    let word = word.as_os_str().as_encoded_bytes();
    let of = |process: &i32| {
        let words = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        words.windows(word.len()).any(|window| window == word)
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).filter(of).collect()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

fn settings(mode: &str) -> serde_json::Value {
    json!({"image": IMAGE, "network": "none", "engine": "direct", "mode": mode})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_what_was_cleaned_up_or_dropped() {
    let temp = tempfile::tempdir().unwrap();
    for mode in ["shared", "isolated"] {
        for is_dropped in [false, true] {
            let Some(both) = open(temp.path(), settings(mode)).await else { return };
            let both = both.unwrap();
            let state = both.state.path().to_owned();
            let mut job = both.setup_job(plan()).await.unwrap();
            let mut execution = job.execute(sh("echo x > /written; echo y > file")).await.unwrap();
            gather(execution.as_mut()).await;
            drop(execution);
            assert_eq!(containers(&state), 1, "{mode}");
            if is_dropped {
                drop(job);
            } else {
                job.cleanup().await.unwrap();
                both.cleanup().await;
                assert_eq!(containers(&state), 0, "{mode}");
            }
            let (state_directory, _containers) = (both.state, both.containers);
            drop(_containers);
            until("a dropped container stays", || containers(&state) == 0 && processes(&state).is_empty());
            drop(state_directory);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_killed_with_its_stage_is_swept_and_what_lives_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let Some(both) = open(temp.path(), settings("shared")).await else { return };
    let both = both.unwrap();
    let state = both.state.path().to_owned();
    let mut job = both.setup_job(plan()).await.unwrap();
    let sweeper = || OciSweeper::new(host(&state).unwrap());
    assert!(sweeper().find().await.unwrap().is_empty(), "its owner lives");

    // As if its owner were dead: another time of start is another process.
    let name = std::fs::read_dir(state.join("containers")).unwrap().next().unwrap().unwrap().path();
    let labels = std::fs::read_to_string(name.join("labels")).unwrap();
    let mut parsed: serde_json::Value = serde_json::from_str(&labels).unwrap();
    let mark = parsed["executr.owner"].as_str().unwrap().to_owned();
    let (process, _) = mark.rsplit_once('.').unwrap();
    parsed["executr.owner"] = json!(format!("{process}.1"));
    std::fs::write(name.join("labels"), parsed.to_string()).unwrap();
    std::fs::create_dir(state.join("containers/somebody-elses")).unwrap();

    let mut execution = job.execute(sh("sleep 1000")).await.unwrap();
    execution.next().await.unwrap();
    for process in processes(&state) {
        // Stage and runtime, before either could clear up.
        let killed = rustix::process::Pid::from_raw(process).unwrap();
        let _ = rustix::process::kill_process(killed, rustix::process::Signal::KILL);
    }
    assert!(name.exists());
    let found = sweeper().find().await.unwrap();
    assert_eq!(found.len(), 1);
    for left in found {
        left.remove().await.unwrap();
    }
    assert!(!name.exists() && state.join("containers/somebody-elses").exists());
    let error = loop {
        match execution.next().await {
            Ok(event) => assert!(event.is_some(), "an end that nobody has seen"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ExecutorError::Agent(_)), "{error}");
    drop(execution);
    drop(job);
    both.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_is_named_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let of = |more: serde_json::Value| {
        let mut all = settings("shared");
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    for (more, word) in [
        (json!({"image": "no-such-image"}), "no-such-image"),
        (json!({"network": "bridge"}), "bridge"),
        (json!({"mounts": ["/no/such/directory:/x"]}), "/no/such/directory"),
        (json!({"mounts": ["relative:/x"]}), "relative"),
        (json!({"tmpfs": ["/t:size=nonsense"]}), "tmpfs"),
    ] {
        let Some(opened) = open(temp.path(), of(more)).await else { return };
        let error = opened.err().unwrap();
        assert!(matches!(error, ExecutorError::Container(_)), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!matches!(error, ExecutorError::Container(ContainerError::Silent)), "{error}");
    }
    let left: Vec<_> = std::fs::read_dir(temp.path().join("work")).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(left.is_empty(), "{left:?}");
}
