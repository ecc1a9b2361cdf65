//! How many jobs of a run are under way at a time.

use std::fs;

use executr_tests::background::Home;

use crate::choosing::file;
use crate::system::{System, succeed};

/// A matrix of six whose jobs write down when they begin and end, and before they end wait until `together` have begun.
fn six(home: &Home, together: usize, more: &str) -> String {
    let log = home.path().join("log").display().to_string();
    let content = format!(
        "
jobs:
  six:
    matrix: {{ number: [1, 2, 3, 4, 5, 6]{more} }}
    steps:
      - |
        echo begin >> {log}
        while [ $(grep -c begin {log}) -lt {together} ]; do sleep 0.02; done
        echo end >> {log}
"
    );
    file(home, &content).display().to_string()
}

/// How many jobs ran, and the most of them at the same time.
fn ran(home: &Home) -> (usize, usize) {
    let log = fs::read_to_string(home.path().join("log")).unwrap();
    let (mut all, mut now, mut most) = (0, 0, 0);
    for line in log.lines() {
        if line == "begin" {
            (all, now) = (all + 1, now + 1);
        } else {
            now -= 1;
        }
        most = most.max(now);
    }
    (all, most)
}

#[test]
fn one_slot_runs_one_job_after_another() {
    for (jobs, together) in [("1", 1), ("3", 3)] {
        let home = Home::new();
        succeed(&mut home.executr(&["run", &six(&home, together, ""), "--jobs", jobs]));
        assert_eq!(ran(&home), (6, together));
    }
}

#[test]
fn a_matrix_keeps_to_its_max_parallel_here_and_on_a_fleet() {
    let home = Home::new();
    succeed(&mut home.executr(&["run", &six(&home, 2, ", max_parallel: 2"), "--jobs", "6"]));
    assert_eq!(ran(&home), (6, 2));

    let system = System::server(&[]);
    let _executors = ["one", "two"].map(|name| system.executor(name, &["--max-jobs", "3"]));
    succeed(&mut system.executr(&["submit", "--wait", &six(&system.home, 2, ", max_parallel: 2")]));
    assert_eq!(ran(&system.home), (6, 2));
}
