//! Cancelling runs, in order and at once: by Ctrl-C here, by a call on a server.

use std::fs;
use std::path::PathBuf;

use executr_tests::background::Home;
use rustix::process::Signal;
use serde_json::Value;

use crate::http;
use crate::system::{System, eventually, is_alive, line_in, signal, spawn, succeed, text};

/// A workflow with a job that is deaf to being told to stop, with steps, a job and hooks that are meant for a
/// cancellation.
fn stubborn(home: &Home) -> PathBuf {
    let file = home.path().join("stubborn.yaml");
    let at = home.path().display();
    fs::write(
        &file,
        format!(
            r#"
name: stubborn
executors:
  place:
    kind: hooks
    copy_repo: false
    execute: '"$EXECUTR_STEP"'
    cleanup_job: echo job >> {at}/cleaned
    cleanup_workspace: echo workspace >> {at}/cleaned
defaults: {{ executor: place }}
jobs:
  works:
    steps:
      - echo $$ > {at}/pid; sleep 600
      - if: always()
        run: |
          trap '' TERM
          echo $$ > {at}/deaf
          while :; do sleep 0.02; done
      - if: always()
        run: echo last >> {at}/ran
  beside:
    if: always()
    steps: ["echo $$ > {at}/beside; sleep 600"]
  next:
    needs: [works]
    steps: ["echo next >> {at}/ran"]
  tidy:
    needs: [works]
    if: always()
    steps: ["echo tidy >> {at}/ran"]
"#
        ),
    )
    .unwrap();
    file
}

/// What became of it: no process left, nothing more was run, everything cleaned up, all of it in a final state.
fn is_over_at_once(home: &Home, run: &Value) {
    for process in ["pid", "deaf", "beside"] {
        assert!(!is_alive(&line_in(&home.path().join(process))), "{process}");
    }
    assert!(!home.path().join("ran").exists(), "what was not begun isn't begun");
    assert_eq!(run["run"]["state"], "cancelled", "{run:#}");
    for job in run["jobs"].as_array().unwrap() {
        assert_eq!(job["state"], "cancelled", "{run:#}");
    }
}

/// The hooks for two jobs and their workspace.
const CLEANED: &str = "job\njob\nworkspace\n";

#[test]
fn the_second_ctrl_c_ends_a_run_at_once() {
    let home = Home::new();
    let file = stubborn(&home);
    let run = spawn(&mut home.executr(&["run", "--jobs", "2", file.to_str().unwrap()]));
    for begun in ["pid", "beside"] {
        line_in(&home.path().join(begun));
    }
    let listed: Value =
        serde_json::from_str(&succeed(&mut home.executr(&["runs", "--here", "--output", "json"]))).unwrap();
    let going_on = home.executr(&["runs", listed[0]["id"].as_str().unwrap()]).output().unwrap();
    assert!(going_on.status.success() && text(&going_on.stdout).contains("stubborn"), "{}", text(&going_on.stderr));
    assert!(text(&going_on.stderr).contains("another process"), "{}", text(&going_on.stderr));
    signal(&run, Signal::INT);
    let deaf = line_in(&home.path().join("deaf"));
    assert!(is_alive(&deaf));
    signal(&run, Signal::INT);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("run cancelled"), "{}", text(&output.stdout));
    let runs: Value =
        serde_json::from_str(&succeed(&mut home.executr(&["runs", "--here", "--output", "json"]))).unwrap();
    let id = runs[0]["id"].as_str().unwrap();
    let whole = serde_json::from_str(&succeed(&mut home.executr(&["runs", id, "--output", "json"]))).unwrap();
    is_over_at_once(&home, &whole);
    assert_eq!(fs::read_to_string(home.path().join("cleaned")).unwrap(), CLEANED);
    let again = home.executr(&["run", file.to_str().unwrap(), "--resume"]).output().unwrap();
    assert_eq!(again.status.code(), Some(3), "a cancelled run is over: {}", text(&again.stderr));
}

#[test]
fn a_run_whose_reader_goes_away_is_cancelled_in_order() {
    let home = Home::new();
    let file = home.path().join("unseen.yaml");
    let at = home.path().display();
    fs::write(
        &file,
        format!(
            r#"
name: unseen
defaults: {{ executor: {{ kind: local, copy_repo: false }} }}
jobs:
  works:
    steps: ["sleep 600"]
  tidy:
    needs: [works]
    if: always()
    steps: ["echo tidied > {at}/ran"]
"#
        ),
    )
    .unwrap();
    let mut run = spawn(&mut home.executr(&["run", file.to_str().unwrap()]));
    drop(run.stdout.take());
    run.wait().unwrap();
    assert_eq!(line_in(&home.path().join("ran")), "tidied");
    let runs: Value =
        serde_json::from_str(&succeed(&mut home.executr(&["runs", "--here", "--output", "json"]))).unwrap();
    assert_eq!(runs[0]["state"], "cancelled", "{runs}");
}

#[test]
fn a_run_on_a_server_is_ended_at_once_by_a_second_call() {
    let system = System::server(&[]);
    let home = &system.home;
    let file = stubborn(home);
    let _executor = system.executor("w", &["--allow", "hooks", "--max-jobs", "2"]);
    let id = succeed(&mut system.executr(&["submit", file.to_str().unwrap()])).trim().to_owned();
    for begun in ["pid", "beside"] {
        line_in(&home.path().join(begun));
    }
    let post = |path: &str| http::send(&system.url, "POST", path, None, None).unwrap();
    let asked = post(&format!("/runs/{id}/cancel"));
    assert_eq!((asked.status, asked.json()["state"].as_str()), (202, Some("cancelling")), "{}", asked.body);
    line_in(&home.path().join("deaf"));
    let wrong = post(&format!("/runs/{id}/cancel?now=perhaps"));
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    let now = post(&format!("/runs/{id}/cancel?now=true"));
    assert!(matches!(now.status, 200 | 202), "{}", now.body);
    let whole = eventually("the run's end", || {
        let whole: Value =
            serde_json::from_str(&succeed(&mut system.executr(&["runs", &id, "--output", "json"]))).unwrap();
        whole["run"]["completed_at"].is_string().then_some(whole)
    });
    is_over_at_once(home, &whole);
    eventually("the workspace is cleaned up", || {
        fs::read_to_string(home.path().join("cleaned")).ok().filter(|cleaned| cleaned == CLEANED)
    });
    // By the command, and without a first call, it is the same.
    fs::remove_file(home.path().join("pid")).unwrap();
    let id = succeed(&mut system.executr(&["submit", file.to_str().unwrap()])).trim().to_owned();
    let process = line_in(&home.path().join("pid"));
    succeed(&mut system.executr(&["runs", &id, "--cancel", "--now"]));
    let told = system.output(&["runs", &id, "--follow"]);
    assert_eq!(told.status.code(), Some(130), "{}", text(&told.stdout));
    assert!(!is_alive(&process));
    assert!(!home.path().join("ran").exists());
}
