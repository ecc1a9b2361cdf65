//! `executr doctor`: the machine it runs on, as it is.

use std::fs;
use std::process::Output;

use executr_tests::background::Home;
use executr_tests::{docker, markdown, program};
use serde_json::Value;

use crate::system::text;

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
