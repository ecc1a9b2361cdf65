//! Sources of variables that fail fail their run, here and on a server, whatever its jobs say of failures.

use std::fs;
use std::path::PathBuf;

use executr_tests::background::Home;
use serde_json::Value;

use crate::system::{System, succeed, text};

/// A workflow that takes every failure there is, and asks for a file that isn't there.
const WORKFLOW: &str = r#"
name: sources
fail_fast: false
retry: 2
defaults: { job_retry: 2, executor: { kind: local, copy_repo: false } }
jobs:
  reads:
    env_from: [{file: {path: settings.env, required: true}}]
    steps: ['test "$REGION" = eu && echo "a region of ${#REGION} letters"']
  broken:
    needs: [reads]
    continue_on_error: true
    steps:
      - run: echo never
        continue_on_error: true
        env_from: [{file: {path: absent.env, required: true}}]
  other:
    needs: [reads]
    steps: ["echo not started"]
  successor:
    needs: [broken]
    steps: ["echo not started"]
  tidy:
    needs: [broken]
    if: always()
    steps: ["echo tidied"]
  report:
    needs: [broken]
    if: failure()
    steps: ["echo reported"]
"#;

/// The workflow in a directory of its own, with a file of variables.
fn repository(home: &Home) -> PathBuf {
    let place = home.path().join("repository");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("ci.yaml"), WORKFLOW).unwrap();
    fs::write(place.join("settings.env"), "REGION=eu\n").unwrap();
    place
}

/// Compares how a run of it came out.
fn came_out(list: &str, show: impl Fn(&str) -> String) {
    let runs: Value = serde_json::from_str(list).unwrap();
    let run: Value = serde_json::from_str(&show(runs[0]["id"].as_str().unwrap())).unwrap();
    let jobs = run["jobs"].as_array().unwrap().iter();
    let states: Vec<_> =
        jobs.map(|job| format!("{} {}", job["name"].as_str().unwrap(), job["state"].as_str().unwrap())).collect();
    assert_eq!(
        states,
        [
            "reads completed",
            "broken failed",
            "other cancelled",
            "successor skipped",
            "tidy completed",
            "report completed"
        ]
    );
    assert_eq!(run["run"]["state"], "failed");
    let message = run["jobs"][1]["error_message"].as_str().unwrap_or_else(|| panic!("no message: {run}"));
    assert!(message.contains("env_from file `absent.env`"), "{message}");
}

#[test]
fn a_source_that_fails_fails_the_run_here_and_on_a_server() {
    let home = Home::new();
    let place = repository(&home);
    let run = home.executr(&["run", "--jobs", "1", "ci.yaml"]).current_dir(&place).output().unwrap();
    let told = text(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{told}{}", text(&run.stderr));
    assert!(told.contains("a region of 2 letters") && !told.contains("never"), "{told}");
    let list = succeed(&mut home.executr(&["runs", "--here", "--output", "json"]));
    came_out(&list, |id| succeed(&mut home.executr(&["runs", id, "--output", "json"])));

    let system = System::server(&[]);
    let _executor = system.executor("one", &["--max-jobs", "1"]);
    let place = repository(&system.home);
    let run = system.executr(&["submit", "--wait", "ci.yaml"]).current_dir(&place).output().unwrap();
    let told = text(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{told}{}", text(&run.stderr));
    assert!(told.contains("a region of 2 letters") && !told.contains("never"), "{told}");
    let list = succeed(&mut system.executr(&["runs", "--output", "json"]));
    came_out(&list, |id| succeed(&mut system.executr(&["runs", id, "--output", "json"])));
}
