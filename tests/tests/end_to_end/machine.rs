//! `executr doctor`: the machine it runs on, as it is. `executr clean`: what dead processes left there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use executr_tests::background::Home;
use executr_tests::{docker, markdown, program};
use serde_json::Value;

use crate::choosing::file;
use crate::system::{eventually, line_in, spawn, succeed, text};

/// The finding of a section, by its subject.
fn finding<'a>(report: &'a Value, section: &str, subject: &str) -> &'a Value {
    let sections = report["sections"].as_array().unwrap();
    let section = sections.iter().find(|found| found["name"] == section).unwrap();
    let mut findings = section["findings"].as_array().unwrap().iter();
    findings.find(|found| found["subject"] == subject).unwrap_or_else(|| panic!("{subject} is not in {report:#}"))
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

#[test]
fn doctor_runs_a_step_and_leaves_nothing() {
    let home = Home::new();
    let output = home.executr(&["doctor"]).output().unwrap();
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    for line in
        ["\nlocal\n  ok      steps ", "machine\n  ok      data directory ", "\nhooks\n  ok      bash ", "\noci\n"]
    {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    assert!(!told.contains('\x1b'), "no colours in a pipe");
    let runs = home.path().join(".local/state/executr/runs");
    assert_eq!(fs::read_dir(runs).unwrap().count(), 0);
    let colours = text(&home.executr(&["doctor"]).env("CLICOLOR_FORCE", "1").output().unwrap().stdout);
    assert!(colours.contains("\x1b[32mok\x1b[0m"), "{colours}");
}

#[test]
fn doctor_tells_what_is_broken_by_its_exit_code() {
    let home = Home::new();
    fs::write(home.path().join("file"), "").unwrap();
    let output = home.executr(&["doctor", "--data-dir", "file", "--output", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = report(&output);
    assert_eq!(finding(&told, "machine", "data directory")["standing"], "broken");
    assert_eq!(finding(&told, "local", "steps")["standing"], "broken");

    let mut asked = home.executr(&["doctor", "--output", "json"]);
    let output = asked.env("DOCKER_HOST", "unix:///nowhere/d.sock").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let engine = &finding(&report(&output), "oci", "engine").clone();
    assert_eq!(engine["standing"], "broken");
    assert!(engine["says"].as_str().unwrap().ends_with("/nowhere/d.sock isn't there"), "{engine}");
    assert!(engine["remedy"].is_string());
}

#[test]
fn doctor_asks_the_engine() {
    let Some(engine) = docker::engine() else { return };
    let home = Home::new();
    let mut asked = home.executr(&["doctor", "--output", "json"]);
    let told = report(&asked.env("DOCKER_HOST", engine.address()).output().unwrap());
    let found = finding(&told, "oci", "engine");
    assert_eq!(found["standing"], "ok", "{found}");
    let says = found["says"].as_str().unwrap();
    assert!(says.starts_with("Docker ") && says.contains(&engine.socket().display().to_string()), "{says}");
}

/// What `executr clean` says with these flags, besides.
fn clean(home: &Home, flags: &[&str]) -> Value {
    // What other tests, or developers, left in the usual places is no business of ours.
    let work_dir = home.path().join("work").display().to_string();
    let mut command = home.executr(&["clean", "--output", "json", "--work-dir", &work_dir]);
    serde_json::from_str(&succeed(command.args(flags))).unwrap()
}

/// Those of what was found that lie in this home.
fn names(home: &Home, told: &Value) -> Vec<(String, PathBuf, bool)> {
    let told = told.as_array().unwrap().iter();
    let told = told.map(|left| {
        let path = PathBuf::from(left["name"].as_str().unwrap());
        (left["kind"].as_str().unwrap().to_owned(), path, left["removed"].as_bool().unwrap())
    });
    told.filter(|(_, path, _)| path.starts_with(home.path())).collect()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn clean_removes_what_a_killed_run_left_and_lets_a_living_one_be() {
    let home = Home::new();
    let runs = home.path().join(".local/state/executr/runs");
    let pid = |name: &str| home.path().join(name);
    let script = |name: &str| format!("echo $$ > {}; sleep 1000", pid(name).display());
    let mut living = spawn(&mut home.executr(&["run", "--", "sh", "-c", &script("living")]));
    line_in(&pid("living"));
    let kept = directories(&runs);
    let mut dying = spawn(&mut home.executr(&["run", "--", "sh", "-c", &script("dying")]));
    line_in(&pid("dying"));
    assert!(names(&home, &clean(&home, &[])).is_empty(), "both live");
    dying.kill().unwrap();
    dying.wait().unwrap();

    let left: Vec<_> = directories(&runs).into_iter().filter(|path| !kept.contains(path)).collect();
    let told =
        |removed| left.iter().map(|path| ("run directory".to_owned(), path.clone(), removed)).collect::<Vec<_>>();
    assert_eq!(left.len(), 1);
    assert_eq!(names(&home, &clean(&home, &["--dry-run"])), told(false));
    assert_eq!(names(&home, &clean(&home, &["--dry-run"])), told(false), "looking changes nothing");
    assert_eq!(names(&home, &clean(&home, &[])), told(true));
    assert_eq!(directories(&runs), kept);
    assert!(living.try_wait().unwrap().is_none(), "it goes on");
    living.kill().unwrap();
    living.wait().unwrap();
}

#[test]
fn clean_leaves_a_dead_run_of_a_workflow_to_be_gone_on_with_until_it_is_old() {
    let home = Home::new();
    let pid = home.path().join("pid");
    let gate = home.path().join("gate");
    let content = format!(
        "jobs:\n  a: {{ steps: ['echo $$ > {}; while [ ! -e {} ]; do sleep 0.01; done'] }}\n",
        pid.display(),
        gate.display()
    );
    let path = file(&home, &content).display().to_string();
    let mut run = spawn(&mut home.executr(&["run", &path]));
    line_in(&pid);
    run.kill().unwrap();
    run.wait().unwrap();
    let workflows = home.path().join(".local/state/executr/workflows");
    // The keeper takes its jobs' processes along.
    let left = eventually("the job's directory is left", || {
        let left = names(&home, &clean(&home, &[]));
        (!left.is_empty()).then_some(left)
    });
    assert!(left.iter().all(|(kind, path, removed)| {
        kind == "job directory" && *removed && path.starts_with(&workflows) && !path.exists()
    }));
    assert!(names(&home, &clean(&home, &["--runs", "1h"])).is_empty(), "it is younger");
    fs::write(gate, "").unwrap();
    succeed(&mut home.executr(&["run", &path, "--resume"]));

    let run = directories(&workflows);
    assert_eq!(run.len(), 1);
    let old = names(&home, &clean(&home, &["--runs", "0s"]));
    assert_eq!(old, [("run".to_owned(), run[0].clone(), true)]);
    assert!(directories(&workflows).is_empty());
}

#[test]
fn clean_says_each_by_name_and_size_and_what_stays() {
    let home = Home::new();
    let partial = home.path().join(".local/state/executr/cache/.partial");
    fs::create_dir_all(&partial).unwrap();
    let part = partial.join("0".repeat(64));
    fs::write(&part, [0; 2048]).unwrap();
    fs::create_dir(home.path().join("work")).unwrap();
    let flags = ["clean", "--work-dir", "work"];
    let told = text(&home.executr(&[&flags[..], &["--dry-run"]].concat()).output().unwrap().stdout);
    let line = told.lines().find(|line| line.contains(&part.display().to_string())).unwrap();
    assert!(line.starts_with("part of a file") && line.contains("2.0 KiB") && line.contains("would go"), "{line}");
    assert!(part.exists());
    let told = succeed(&mut home.executr(&flags));
    assert!(told.contains("removed") && !part.exists(), "{told}");

    // A directory that is a file can't be looked into.
    fs::remove_dir_all(&partial).unwrap();
    fs::write(&partial, "").unwrap();
    let output = home.executr(&flags).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(".local/state/executr/cache"), "{}", text(&output.stderr));
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let page = fs::read_to_string(program::root().join("docs/operating.md")).unwrap();
    let section = page.split("\n## This machine\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = markdown::blocks(section);
    assert!(!blocks.is_empty());
    for block in blocks {
        let home = Home::new();
        let output = home.command("sh").args(["-euc", &block.text]).output().unwrap();
        assert!(output.status.success(), "{}{}{}", block.text, text(&output.stdout), text(&output.stderr));
    }
}
