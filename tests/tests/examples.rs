//! The files under `examples/`: jobs are accepted and end as they should, executors start with their settings.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use executr_tests::background::{Background, Home};
use executr_tests::program;
use serde_json::Value;

/// Jobs an executor with default settings runs to their end, and a line of what each prints.
const THESE_RUN: [(&str, &str); 3] =
    [("script.json", "sum: 500500\n"), ("retry.json", "this time\n"), ("one-at-a-time.json", "deployed\n")];

/// Jobs that need something this machine lacks: a file on a remote host, an executor with labels. They are accepted
/// and wait, or fail for just that reason.
const THESE_ARE_ACCEPTED: [&str; 2] = ["binary.json", "bounded.json"];

const THIS_IS_MANY: &str = "bulk.json";

#[test]
fn every_job_here_is_tested() {
    let files: BTreeSet<_> = names_in("examples/jobs").into_iter().filter(|name| name.ends_with(".json")).collect();
    let mut tested: BTreeSet<_> = THESE_RUN.iter().map(|(name, _)| (*name).to_owned()).collect();
    tested.extend(THESE_ARE_ACCEPTED.iter().map(|name| (*name).to_owned()));
    tested.insert(THIS_IS_MANY.to_owned());
    assert_eq!(files, tested);
}

#[test]
fn jobs_run_to_their_end() {
    let fleet = Fleet::start();
    for (name, last_line) in THESE_RUN {
        let id = fleet.submit(name)["id"].as_str().unwrap().to_owned();
        let ended = fleet.executr(&["wait", &id]);
        assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
        let printed = fleet.executr(&["logs", &id]);
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        assert!(printed.ends_with(last_line), "{name}: {printed}");
    }
}

#[test]
fn jobs_for_other_machines_are_accepted() {
    let fleet = Fleet::start();
    for name in THESE_ARE_ACCEPTED {
        let id = fleet.submit(name)["id"].as_str().unwrap().to_owned();
        let status = fleet.executr(&["status", &id, "--output", "json"]);
        let job: Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(job["id"].as_str(), Some(&*id), "{name}");
    }
}

#[test]
fn many_jobs_are_accepted_at_once() {
    let fleet = Fleet::start();
    let answer = fleet.submit(THIS_IS_MANY);
    let ids: Vec<_> = answer.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    assert!(fleet.executr(&[&["wait"], &ids[..]].concat()).status.success());
}

#[test]
fn executors_start_with_these_settings_and_take_a_job() {
    for name in names_in("examples/executors") {
        let home = Home::new();
        let (_server, url) = Background::serve(&home, &["server"], &[]);

        let text = fs::read_to_string(program::root().join("examples/executors").join(&name)).unwrap();
        let settings = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('=').unwrap());
        let mut executor = home.executr(&["executor"]);
        executor.envs(settings);
        // What belongs to the reader's machines: their server, their disks, their token.
        executor
            .env("EXECUTR_SERVER_URL", &url)
            .env("EXECUTR_CACHE_DIR", home.path().join("cache"))
            .env("EXECUTR_WORK_DIR", home.path().join("jobs"))
            .env_remove("EXECUTR_TOKEN_FILE");
        let executor = Background::start(&home, "executor", &mut executor);
        let done = home.executr(&["submit", "--wait", "--", "echo", "taken"]).env("EXECUTR_SERVER_URL", &url).output();
        assert_eq!(String::from_utf8_lossy(&done.unwrap().stdout), "taken\n", "{name}: {}", executor.output());
    }
}

/// `executr up`, and commands for it.
struct Fleet {
    home: Home,
    url: String,
    // Dropped with the fleet.
    _up: Background,
}

impl Fleet {
    fn start() -> Self {
        let home = Home::new();
        let (up, url) = Background::serve(&home, &["up"], &[]);
        Self { home, url, _up: up }
    }

    fn executr(&self, arguments: &[&str]) -> std::process::Output {
        self.here(self.home.executr(arguments))
    }

    /// Sends a file of `examples/jobs` with the script beside it, and returns the answer.
    fn submit(&self, name: &str) -> Value {
        let jobs = program::root().join("examples/jobs");
        let mut script = self.home.command("sh");
        script.arg(jobs.join("submit.sh")).arg(jobs.join(name));
        let output = self.here(script);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn here(&self, mut command: Command) -> std::process::Output {
        command.env("EXECUTR_SERVER_URL", &self.url).output().unwrap()
    }
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(program::root().join(folder)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| PathBuf::from(entry.unwrap().file_name())).collect();
    names.sort();
    names.into_iter().map(|name| name.display().to_string()).collect()
}
