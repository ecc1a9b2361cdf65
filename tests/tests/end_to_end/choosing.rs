//! What of a workflow runs, and with which variables: the flags `run` and `submit` share.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use executr_tests::background::Home;

use crate::system::{System, succeed, text};

/// Writes a workflow's file into the home.
pub(crate) fn file(home: &Home, content: &str) -> PathBuf {
    let path = home.path().join("workflow.yaml");
    let head = "defaults: { executor: { kind: local, copy_repo: false } }\n";
    fs::write(&path, format!("name: workflow\n{head}{content}")).unwrap();
    path
}

/// Runs the file in `home` here, then on a server with its executor, with the same flags; `look` is shown both.
fn both_ways(content: &str, flags: &[&str], look: impl Fn(&Output)) {
    let home = Home::new();
    let path = file(&home, content);
    let mut near = home.executr(&["run", path.to_str().unwrap()]);
    look(&near.args(flags).output().unwrap());
    let system = System::up(&[]);
    let path = file(&system.home, content);
    let mut far = system.executr(&["submit", "--wait", path.to_str().unwrap()]);
    look(&far.args(flags).output().unwrap());
}

/// The lines that jobs wrote, in their order, as `job text`.
fn written(output: &Output) -> Vec<String> {
    let lines = text(&output.stdout);
    let said = lines.lines().filter_map(|line| line.split_once(" said "));
    said.map(|(job, words)| format!("{} {words}", job.trim_matches(['[', ']']))).collect()
}

const CHAIN: &str = "
jobs:
  a: { steps: [echo said it] }
  b: { needs: a, steps: [echo said it] }
  c: { needs: b, steps: [echo said it] }
  other: { steps: [echo said it] }
";

#[test]
fn chosen_jobs_run_with_what_they_need() {
    both_ways(CHAIN, &["b"], |output| {
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(written(output), ["a it", "b it"]);
    });
}

#[test]
fn chosen_jobs_run_alone_when_told_so() {
    both_ways(CHAIN, &["b", "other", "--no-needs"], |output| {
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let mut written = written(output);
        written.sort();
        assert_eq!(written, ["b it", "other it"]);
    });
}

#[test]
fn jobs_of_a_matrix_are_chosen_together() {
    let matrix = "
jobs:
  test:
    matrix: { on: [x, y] }
    steps: [echo said it]
  other: { steps: [echo said it] }
";
    both_ways(matrix, &["test"], |output| {
        let mut written = written(output);
        written.sort();
        assert_eq!(written, ["test-on-x it", "test-on-y it"], "{}", text(&output.stderr));
    });
}

#[test]
fn a_choice_that_cannot_run_is_refused_before_anything_does() {
    let artifacts = "
jobs:
  make: { steps: [echo said it > file], outputs: { made: file } }
  use: { needs: make, inputs: [made], steps: [echo said it] }
";
    for (flags, told) in [(&["nobody"][..], "`nobody`"), (&["use", "--no-needs"], "`make`, which is not chosen")] {
        both_ways(artifacts, flags, |output| {
            assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
            assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
            assert!(written(output).is_empty());
        });
    }
}

#[test]
fn the_first_failure_stops_what_has_not_started_unless_told_otherwise() {
    // `slow` is still running when `broken` has failed, as `mark` knows; `later` comes after it and needs nothing that failed.
    let content = |at: &Home| {
        format!(
            "
jobs:
  broken: {{ steps: [exit 1] }}
  mark: {{ needs: broken, if: failure(), steps: [touch {0}/mark] }}
  slow: {{ steps: ['while [ ! -e {0}/mark ]; do sleep 0.02; done'] }}
  later: {{ needs: slow, steps: [echo said it] }}
",
            at.path().display()
        )
    };
    for (flags, said) in [(&[][..], &[][..]), (&["--fail-fast=false"], &["later it"])] {
        let home = Home::new();
        let path = file(&home, &content(&home));
        let mut near = home.executr(&["run", path.to_str().unwrap(), "--jobs", "3"]);
        let near = near.args(flags).output().unwrap();
        let system = System::up(&["--max-jobs", "3"]);
        let path = file(&system.home, &content(&system.home));
        let far = system.executr(&["submit", "--wait", path.to_str().unwrap()]).args(flags).output().unwrap();
        for output in [near, far] {
            assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
            assert_eq!(written(&output), *said, "{flags:?}: {}", text(&output.stdout));
        }
    }
}

#[test]
fn variables_of_the_command_line_win_over_those_of_files() {
    let content = "
env: { A: file, B: file, C: file }
jobs:
  a:
    env: { A: job, B: job }
    steps:
      - run: echo \"said $A $B $C $D\"
        env: { A: step, D: 'derived from ${{ env.B }}' }
";
    let home = Home::new();
    let dot = home.path().join("dot.env");
    fs::write(&dot, "A=dot\nB=dot\nC=dot\n").unwrap();
    let dot = dot.display().to_string();
    let over = home.path().join("over.env");
    fs::write(&over, "B=over\n").unwrap();
    let over = over.display().to_string();
    for (flags, said) in [
        (&[][..], "a step job file derived from job"),
        (&["--env-file", &dot], "a dot dot dot derived from dot"),
        (&["--env-file", &dot, "--env-file", &over], "a dot over dot derived from over"),
        // Wherever it stands on the line.
        (&["--env", "B=flag", "--env-file", &dot], "a dot flag dot derived from flag"),
    ] {
        both_ways(content, flags, |output| {
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            assert_eq!(written(output), [said], "{flags:?}");
        });
    }
}

#[test]
fn flags_that_cannot_be_meant_are_refused_with_what_to_write() {
    let home = Home::new();
    let path = file(&home, CHAIN);
    fs::write(home.path().join("bad.env"), "A=1\nnonsense\n").unwrap();
    for (flags, told) in [
        (&["--jobs", "0"][..], "1..=10000"),
        (&["--env", "A"], "NAME=VALUE"),
        (&["--env-file", "none.env"], "none.env: No such file"),
        (&["--env-file", "bad.env"], "bad.env: line 2"),
        (&["--env-file", "bad.env"], "NAME=value lines"),
        (&["--format", "fancy"], "structured"),
        (&["--fail-fast=maybe"], "true, false"),
    ] {
        let output = home.executr(&["run", path.to_str().unwrap()]).args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains(told), "{flags:?}: {}", text(&output.stderr));
        assert!(written(&output).is_empty());
    }
}

#[test]
fn a_dry_run_says_what_would_run_and_needs_nobody() {
    let content = "
jobs:
  build:
    retry: { max_attempts: 3, backoff: linear, min_time: 2s }
    steps: [make]
    outputs: { dist: build }
  test:
    needs: build
    inputs: [dist]
    matrix: { on: [x, y], max_parallel: 1 }
    steps: [{ name: check, run: make check, if: always() }]
  tell: { needs: test, if: failure(), continue_on_error: true, steps: [tell] }
";
    let home = Home::new();
    let path = file(&home, content);
    let whole = "\
workflow: 4 jobs; the first failure stops what has not started

build  (on local)
  1. make  (up to 3 tries, 2s, 4s apart)
  makes dist of build

test-on-x  (after build; on local; at most 1 at a time of matrix:test)
  gets dist of build into .
  1. check: make check  (if always())

test-on-y  (after build; on local; at most 1 at a time of matrix:test)
  gets dist of build into .
  1. check: make check  (if always())

tell  (after test (2); if failure(); on local; may fail)
  1. tell
";
    let near = succeed(&mut home.executr(&["run", "--dry-run", path.to_str().unwrap()]));
    assert_eq!(near, whole);
    // Nobody listens there.
    let mut far = home.executr(&["submit", "--dry-run", "--server-url", "http://127.0.0.1:9", path.to_str().unwrap()]);
    assert_eq!(succeed(&mut far), whole);
    let chosen = succeed(&mut home.executr(&["run", "--dry-run", path.to_str().unwrap(), "build"]));
    assert!(chosen.contains("1 job") && !chosen.contains("test"), "{chosen}");
}
