//! What becomes of a run when somebody interrupts it: Ctrl-C, kill -9, a repeat; and what it made.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use executr_tests::background::{Background, Home};
use executr_tests::postgres;
use rustix::process::Signal;
use serde_json::Value;

use crate::system::{System, eventually, is_alive, line_in, signal, spawn, succeed, text};

/// A workflow whose second job waits for a gate, after it has written its process down.
fn gated(home: &Home) -> PathBuf {
    let file = home.path().join("gated.yaml");
    let at = home.path().display();
    fs::write(
        &file,
        format!(
            r#"
name: gated
defaults: {{ executor: {{ kind: local, copy_repo: false }} }}
jobs:
  first:
    steps: ["echo first >> {at}/ran"]
  second:
    needs: [first]
    steps:
      - |
        echo second >> {at}/ran
        echo $$ > {at}/pid
        while [ ! -e {at}/gate ]; do sleep 0.02; done
        echo through
  tidy:
    needs: [second]
    if: always()
    steps: ["echo tidied >> {at}/ran"]
"#
        ),
    )
    .unwrap();
    file
}

fn ran(home: &Home) -> Vec<String> {
    fs::read_to_string(home.path().join("ran")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn ctrl_c_cancels_a_run_and_lets_run_what_is_meant_for_that() {
    let home = Home::new();
    let file = gated(&home);
    let run = spawn(&mut home.executr(&["run", file.to_str().unwrap()]));
    let process = line_in(&home.path().join("pid"));
    signal(&run, Signal::INT);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(ran(&home), ["first", "second", "tidied"]);
    assert!(!is_alive(&process));
    assert!(text(&output.stdout).contains("run cancelled"), "{}", text(&output.stdout));
}

#[test]
fn a_run_that_died_goes_on_where_it_was() {
    let home = Home::new();
    let file = gated(&home);
    let mut run = spawn(&mut home.executr(&["run", file.to_str().unwrap()]));
    let process = line_in(&home.path().join("pid"));
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("the job ends with its worker", || (!is_alive(&process)).then_some(()));
    let died = home.executr(&["runs", "--here"]).output().unwrap();
    assert!(text(&died.stdout).contains("died"), "{}", text(&died.stdout));
    let id = newest(&succeed(&mut home.executr(&["runs", "--here", "--output", "json"])));
    let one = home.executr(&["runs", &id]).output().unwrap();
    assert!(text(&one.stdout).contains("died") && text(&one.stderr).contains("--resume="), "{}", text(&one.stdout));
    let again = home.executr(&["rerun", &id]).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "a dead run isn't over: {}", text(&again.stderr));
    assert!(text(&again.stderr).contains(&format!("--resume={id}")), "{}", text(&again.stderr));
    fs::write(home.path().join("gate"), "").unwrap();
    fs::write(&file, "not what is gone on with").unwrap();
    let resumed = home.executr(&["run", file.to_str().unwrap(), "--resume"]).output().unwrap();
    let (told, beside) = (text(&resumed.stdout), text(&resumed.stderr));
    assert!(resumed.status.success() && told.contains("[second] through") && !told.contains("[first]"), "{told}");
    assert!(beside.contains("has changed since"), "{beside}");
    assert_eq!(ran(&home), ["first", "second", "second", "tidied"]);
    let again = home.executr(&["run", file.to_str().unwrap(), "--resume"]).output().unwrap();
    assert_eq!(again.status.code(), Some(3), "{}", text(&again.stderr));
    let named = home.executr(&["run", file.to_str().unwrap(), &format!("--resume={id}")]).output().unwrap();
    assert_eq!(named.status.code(), Some(3), "{}", text(&named.stderr));
    assert!(text(&named.stderr).contains("is over"), "{}", text(&named.stderr));
    let nothing = home.executr(&["rerun", &id, "--failed"]).output().unwrap();
    assert!(!nothing.status.success() && text(&nothing.stderr).contains("nothing failed"), "{}", text(&nothing.stderr));
}

#[test]
fn ctrl_c_ends_also_a_clean_up_that_hangs() {
    let home = Home::new();
    let file = home.path().join("hangs.yaml");
    let at = home.path().display();
    fs::write(
        &file,
        format!(
            r#"
name: hangs
executors:
  hanging:
    kind: hooks
    copy_repo: false
    execute: $EXECUTR_STEP
    cleanup_workspace: echo $$ > {at}/pid; sleep 1000
jobs:
  short: {{ executor: hanging, steps: ["true"] }}
"#
        ),
    )
    .unwrap();
    let mut run = spawn(&mut home.executr(&["run", file.to_str().unwrap()]));
    let process = line_in(&home.path().join("pid"));
    signal(&run, Signal::INT);
    let mut told = String::new();
    let mut errors = BufReader::new(run.stderr.take().unwrap());
    while !told.contains("Ctrl-C once more") {
        assert_ne!(errors.read_line(&mut told).unwrap(), 0, "{told}");
    }
    signal(&run, Signal::INT);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    eventually("the hook ends with its keeper", || (!is_alive(&process)).then_some(()));
    let runs: Value =
        serde_json::from_str(&succeed(&mut home.executr(&["runs", "--here", "--output", "json"]))).unwrap();
    assert_eq!(runs[0]["state"], "completed", "{runs}");
}

/// A workflow that makes an artifact, and fails unless a file is there.
fn failing(home: &Home) -> PathBuf {
    let file = home.path().join("failing.yaml");
    let at = home.path().display();
    fs::write(
        &file,
        format!(
            r#"
name: failing
defaults: {{ executor: {{ kind: local, copy_repo: false }} }}
jobs:
  make:
    steps: ["echo made >> {at}/ran; mkdir dist; echo content > dist/file"]
    outputs: {{ dist: dist }}
  use:
    needs: [make]
    inputs: [dist]
    steps: ["cat dist/file; test -e {at}/fixed"]
"#
        ),
    )
    .unwrap();
    file
}

/// The newest run's id.
fn newest(list: &str) -> String {
    let runs: Value = serde_json::from_str(list).unwrap();
    runs[0]["id"].as_str().unwrap_or_else(|| panic!("no run in {list}")).to_owned()
}

#[test]
fn what_failed_is_repeated_here_with_what_the_others_made() {
    let home = Home::new();
    let file = failing(&home);
    let failed = home.executr(&["run", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stdout));
    let id = newest(&succeed(&mut home.executr(&["runs", "--here", "--output", "json"])));
    fs::write(home.path().join("fixed"), "").unwrap();
    let told = succeed(&mut home.executr(&["rerun", &id, "--failed"]));
    assert!(told.contains("[use] content") && told.contains("run completed"), "{told}");
    assert_eq!(ran(&home), ["made"], "what succeeded does not run again");
    let got = home.executr(&["artifacts", "get", &id, "dist", "--to", "got"]).output().unwrap();
    assert_eq!(text(&got.stderr), "got/dist: 1 file, 8 B\n");
    assert_eq!(fs::read_to_string(home.path().join("got/dist/file")).unwrap(), "content\n");
    let over = home.executr(&["artifacts", "get", &id, "dist", "--to", "got"]).output().unwrap();
    assert!(!over.status.success() && text(&over.stderr).contains("--to"), "{}", text(&over.stderr));
    let none = home.executr(&["artifacts", "get", &id, "nothing"]).output().unwrap();
    assert_eq!(none.status.code(), Some(3));
    assert!(text(&none.stderr).contains("dist"), "{}", text(&none.stderr));
}

/// A run that failed is repeated as a whole: all its jobs run again, also those that had succeeded, with the plan it had.
fn repeats_all(home: &Home, executr: impl Fn(&[&str]) -> Command, first: &[&str], list: &[&str]) {
    let file = failing(home);
    let failed = executr(&[first, &[file.to_str().unwrap()]].concat()).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}{}", text(&failed.stdout), text(&failed.stderr));
    let id = newest(&succeed(&mut executr(list)));
    fs::write(home.path().join("fixed"), "").unwrap();
    fs::write(file, "not what is repeated").unwrap();
    let told = succeed(&mut executr(&["rerun", &id, "--wait"]));
    assert!(told.contains("[use] content") && told.contains("run completed"), "{told}");
    assert_eq!(ran(home), ["made", "made"]);
    let again = newest(&succeed(&mut executr(list)));
    let run: Value = serde_json::from_str(&succeed(&mut executr(&["runs", &again, "--output", "json"]))).unwrap();
    assert_eq!((&run["run"]["rerun_of"], &run["run"]["state"]), (&id.as_str().into(), &"completed".into()), "{run}");
    assert_eq!(run["run"]["jobs"], serde_json::json!({"completed": 2}));
    // The run that was repeated stays as it was.
    let run: Value = serde_json::from_str(&succeed(&mut executr(&["runs", &id, "--output", "json"]))).unwrap();
    assert_eq!((&run["run"]["state"], &run["run"]["rerun_of"]), (&"failed".into(), &Value::Null), "{run}");
    for run in [id, again] {
        succeed(&mut executr(&["artifacts", "get", &run, "dist", "--to", &run]));
        assert_eq!(fs::read_to_string(home.path().join(run).join("dist/file")).unwrap(), "content\n");
    }
}

#[test]
fn a_whole_run_is_repeated_here_and_on_a_server() {
    let home = Home::new();
    repeats_all(&home, |words| home.executr(words), &["run"], &["runs", "--here", "--output", "json"]);
    let system = System::up(&[]);
    let executr = |words: &[&str]| system.executr(words);
    repeats_all(&system.home, executr, &["submit", "--wait"], &["runs", "--output", "json"]);
}

#[test]
fn what_failed_is_repeated_on_a_server() {
    let system = System::up(&[]);
    repeats_what_failed(&system);
}

#[test]
fn runs_go_over_postgresql_as_well() {
    let Some(database) = postgres::database() else { return };
    let system = System::server(&["--db-url", &database.url()]);
    let _executors = ["one", "two"].map(|name| system.executor(name, &[]));
    repeats_what_failed(&system);
}

fn repeats_what_failed(system: &System) {
    let file = failing(&system.home);
    let failed = system.output(&["submit", "--wait", file.to_str().unwrap()]);
    assert_eq!(failed.status.code(), Some(1), "{}{}", text(&failed.stdout), text(&failed.stderr));
    let id = newest(&succeed(&mut system.executr(&["runs", "--output", "json"])));
    fs::write(system.home.path().join("fixed"), "").unwrap();
    let told = succeed(&mut system.executr(&["rerun", &id, "--failed", "--wait"]));
    assert!(told.contains("[use] content") && told.contains("run completed"), "{told}");
    assert_eq!(ran(&system.home), ["made"]);
    succeed(&mut system.executr(&["artifacts", "get", &id, "dist", "--tar", "dist.tar.zst"]));
    let archive = fs::read(system.home.path().join("dist.tar.zst")).unwrap();
    assert_eq!(archive[..4], [0x28, 0xb5, 0x2f, 0xfd], "a zstd frame");
}

#[test]
fn a_server_that_dies_during_a_run_goes_on_with_it() {
    let mut system = System::server(&["--heartbeat-timeout", "1s"]);
    let file = gated(&system.home);
    let _executor = system.executor("w", &[]);
    let id = succeed(&mut system.executr(&["submit", file.to_str().unwrap()])).trim().to_owned();
    line_in(&system.home.path().join("pid"));
    system.server.kill();
    fs::write(system.home.path().join("gate"), "").unwrap();
    system.restart_server(&["--heartbeat-timeout", "1s"]);
    let run = eventually("the run's end", || {
        let output = system.output(&["runs", &id, "--output", "json"]);
        let whole: Value = serde_json::from_slice(&output.stdout).ok()?;
        whole["run"]["completed_at"].is_string().then_some(whole)
    });
    assert_eq!(run["run"]["state"], "completed", "{run}");
    assert_eq!(ran(&system.home), ["first", "second", "tidied"]);
}

#[test]
fn an_executor_that_dies_loses_no_run() {
    let system = System::server(&["--heartbeat-timeout", "1s"]);
    let file = gated(&system.home);
    let mut first: Background = system.executor("first", &[]);
    let id = succeed(&mut system.executr(&["submit", file.to_str().unwrap()])).trim().to_owned();
    let process = line_in(&system.home.path().join("pid"));
    first.kill();
    eventually("the job ends with its worker", || (!is_alive(&process)).then_some(()));
    fs::write(system.home.path().join("gate"), "").unwrap();
    let _second = system.executor("second", &[]);
    let told = succeed(&mut system.executr(&["runs", "--follow", &id]));
    assert!(told.contains("[second] through") && told.contains("run completed"), "{told}");
    assert_eq!(ran(&system.home), ["first", "second", "second", "tidied"]);
}

/// All files below a directory, with their inodes.
fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flat_map(|entry| {
            let (path, found) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
            if found.is_dir() { files(&path) } else { vec![(path, found.ino())] }
        })
        .collect()
}

#[test]
fn the_bytes_of_runs_here_are_on_the_disk_once() {
    let home = Home::new();
    let project = home.path().join("project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("large"), vec![b'x'; 3 << 20]).unwrap();
    fs::write(
        project.join("ci.yaml"),
        r#"
name: shares
jobs:
  make:
    steps: ["head -c 2000000 large > made"]
    outputs: { made: made }
  use:
    needs: [make]
    inputs: [made]
    steps: ["test $(wc -c < made) = 2000000"]
"#,
    )
    .unwrap();
    for _ in 0..2 {
        succeed(home.executr(&["run", "ci.yaml"]).current_dir(&project));
    }
    let data = home.path().join(".local/state/executr");
    let runs: Vec<PathBuf> = fs::read_dir(data.join("workflows"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert_eq!(runs.len(), 2);
    let common: Vec<u64> = files(&data.join("trees")).into_iter().map(|(_, inode)| inode).collect();
    for run in &runs {
        let blobs = files(&run.join("blobs"));
        // Two manifests, and what is in them.
        assert!(blobs.len() >= 4, "{blobs:?}");
        let own: Vec<_> = blobs.iter().filter(|(_, inode)| !common.contains(inode)).collect();
        assert!(own.is_empty(), "{own:?}");
    }
    // What a run has stays, whatever becomes of the others and of what they have in common.
    fs::remove_dir_all(&runs[0]).unwrap();
    fs::remove_dir_all(data.join("trees")).unwrap();
    let list = succeed(&mut home.executr(&["runs", "--here", "--output", "json"]));
    let id = newest(&list);
    succeed(&mut home.executr(&["artifacts", "get", &id, "made", "--to", "got"]));
    assert_eq!(fs::metadata(home.path().join("got/made")).unwrap().len(), 2_000_000);
    succeed(&mut home.executr(&["rerun", &id]));
}
