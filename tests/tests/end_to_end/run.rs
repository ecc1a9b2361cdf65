//! `executr run`: a job here and now.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use executr_tests::background::Home;
use rustix::process::Signal;

use crate::system::{eventually, is_alive, line_in, signal, spawn, text};

#[test]
fn output_and_exit_code_are_the_jobs() {
    let home = Home::new();
    let output = home.executr(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]).output().unwrap();
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_command_gets_what_it_is_given_of_the_repository() {
    let home = Home::new();
    let repository = home.path().join("repository");
    fs::create_dir_all(repository.join(".git")).unwrap();
    for (path, content) in [("a", "one\n"), ("sub/b", "two\n"), ("sub/c", "three\n")] {
        fs::create_dir_all(repository.join(path).parent().unwrap()).unwrap();
        fs::write(repository.join(path), content).unwrap();
    }
    let run = |arguments: &[&str]| {
        let command = &mut home.executr(&[&["run"], arguments].concat());
        let output = command.current_dir(repository.join("sub")).output().unwrap();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    let script = "cat ../a b; test ! -e c; echo \"$1\" >&2; echo new > b; exit 3";
    let found = run(&["--files", "../a", "--files", "b", "--", "sh", "-c", script, "x", "${{ a }}"]);
    assert_eq!(found, ("one\ntwo\n".to_owned(), "${{ a }}\n".to_owned(), Some(3)));
    assert_eq!(fs::read_to_string(repository.join("sub/b")).unwrap(), "two\n");
    let (_, told, code) = run(&["--files", "nothing", "--", "true"]);
    assert!(told.contains("the repository has no `sub/nothing`") && code == Some(125), "{told}");
    let (_, told, code) = run(&["--files", "../../x", "--", "true"]);
    assert!(told.contains("leads out of the repository") && code == Some(2), "{told}");
}

#[test]
fn what_a_command_or_a_workflow_modifies_comes_back() {
    let home = Home::new();
    let repository = home.path().join("repository");
    fs::create_dir_all(repository.join(".git")).unwrap();
    fs::write(repository.join("a"), "one\n").unwrap();
    fs::write(repository.join("b"), "two\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = home.executr(&[&["run"], arguments].concat()).current_dir(&repository).output().unwrap();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    let (out, told, code) = run(&["--modified", "out", "--", "sh", "-c", "echo more >> a; rm b; echo done; exit 4"]);
    assert_eq!((out.as_str(), code), ("done\n", Some(4)), "{told}");
    assert!(told.contains("out: 1 modified file of run; deleted there, not here: b"), "{told}");
    assert_eq!(fs::read_to_string(repository.join("out/a")).unwrap(), "one\nmore\n");
    assert_eq!(fs::read_to_string(repository.join("a")).unwrap(), "one\n");
    fs::remove_dir_all(repository.join("out")).unwrap();
    let file = home.path().join("ci.yaml");
    let jobs = "jobs: {make: {steps: [mkdir -p d; echo new > d/new], modified: {to: ., archive: tar.s2}}}";
    fs::write(&file, jobs).unwrap();
    let (_, told, code) = run(&[file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(fs::read_to_string(repository.join("d/new")).unwrap(), "new\n");
}

#[test]
fn every_byte_survives() {
    let home = Home::new();
    // All 256 bytes, no newline at the end.
    let script = r#"i=0; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i+1)); done"#;
    let output = home.executr(&["run", "--", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.stdout, (0..=255).collect::<Vec<u8>>());
}

#[test]
fn much_output_is_complete() {
    let home = Home::new();
    let output = home.executr(&["run", "--", "sh", "-c", "seq 1 400000"]).output().unwrap();
    let lines = text(&output.stdout);
    assert!(output.status.success());
    assert_eq!(lines.lines().count(), 400_000);
    assert!(lines.lines().zip(1..).all(|(line, number)| line == number.to_string()));
}

#[test]
fn the_job_has_our_directory_and_environment() {
    let home = Home::new();
    fs::create_dir(home.path().join("here")).unwrap();
    let mut command = home.executr(&["run", "--env", "ADDED=by flag", "--", "sh", "-c", "pwd; echo \"$MINE, $ADDED\""]);
    let output = command.current_dir(home.path().join("here")).env("MINE", "as is").output().unwrap();
    assert_eq!(text(&output.stdout), format!("{}\nas is, by flag\n", home.path().join("here").display()));
}

#[test]
fn a_relative_program_is_found_here() {
    let home = Home::new();
    fs::write(home.path().join("tool"), "#!/bin/sh\necho called: \"$@\"\n").unwrap();
    assert!(home.command("chmod").args(["+x", "tool"]).status().unwrap().success());
    let output = home.executr(&["run", "./tool", "-x", "a b"]).output().unwrap();
    assert_eq!(text(&output.stdout), "called: -x a b\n", "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_started_is_told() {
    let home = Home::new();
    let output = home.executr(&["run", "--", "no-such-program"]).output().unwrap();
    assert!([Some(125), Some(127)].contains(&output.status.code()), "{:?}", output.status);
    assert!(text(&output.stderr).contains("no-such-program"), "{}", text(&output.stderr));
}

#[test]
fn a_signal_is_128_and_its_number() {
    let home = Home::new();
    let status = home.executr(&["run", "--", "sh", "-c", "kill -KILL $$"]).status().unwrap();
    assert_eq!(status.code(), Some(128 + 9));
}

#[test]
fn output_appears_while_the_job_runs() {
    let home = Home::new();
    let gate = home.path().join("gate");
    let script = format!("echo first; while [ ! -e '{}' ]; do sleep 0.01; done; echo second", gate.display());
    let mut run = spawn(&mut home.executr(&["run", "--", "sh", "-c", &script]));
    let mut first = [0; 6];
    run.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\n");
    fs::write(gate, "").unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "second\n");
}

#[test]
fn ctrl_c_ends_the_whole_tree() {
    let home = Home::new();
    let pid_file = home.path().join("pid");
    // A grandchild in a session of its own that ignores what asks it to end.
    let script = format!(
        "setsid sh -c 'trap \"\" TERM INT HUP; echo $$ > {}; while :; do sleep 1; done' & wait",
        pid_file.display()
    );
    let run = spawn(&mut home.executr(&["run", "--", "sh", "-c", &script]));
    let hidden = line_in(&pid_file);
    assert!(is_alive(&hidden));
    signal(&run, Signal::INT);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(!is_alive(&hidden), "it outlived its job");
}

#[test]
fn a_second_ctrl_c_does_not_wait() {
    let home = Home::new();
    let pid_file = home.path().join("pid");
    let script = format!("trap '' TERM INT; echo $$ > {}; while :; do sleep 0.1; done", pid_file.display());
    let mut run = spawn(&mut home.executr(&["run", "--", "sh", "-c", &script]));
    let job = line_in(&pid_file);
    signal(&run, Signal::INT);
    eventually("the end of the run", || {
        if let Some(status) = run.try_wait().unwrap() {
            return Some(status);
        }
        signal(&run, Signal::INT);
        None
    });
    eventually("the end of the job", || (!is_alive(&job)).then_some(()));
}

#[test]
fn killed_it_leaves_no_process() {
    let home = Home::new();
    let pid_file = home.path().join("pid");
    let script = format!("setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done'", pid_file.display());
    let mut run = spawn(&mut home.executr(&["run", "--", "sh", "-c", &script]));
    let job = line_in(&pid_file);
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("the end of the job", || (!is_alive(&job)).then_some(()));
}

#[test]
fn a_timeout_ends_the_job() {
    let home = Home::new();
    let begun = Instant::now();
    let output = home.executr(&["run", "--timeout", "200ms", "--", "sleep", "1000"]).output().unwrap();
    assert!(!output.status.success() && begun.elapsed() < Duration::from_secs(60));
    assert!(text(&output.stderr).contains("200ms"), "{}", text(&output.stderr));
}

#[test]
fn a_reader_who_leaves_ends_the_job() {
    let home = Home::new();
    let mut run = home.executr(&["run", "--", "yes"]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 2];
    run.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(141), String::new()));
}

#[test]
fn what_is_left_is_bounded() {
    let home = Home::new();
    for _ in 0..3 {
        assert!(home.executr(&["run", "--", "true"]).status().unwrap().success());
    }
    let runs = home.path().join(".local/state/executr/runs");
    let left = fs::read_dir(&runs).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 0, "a run that ended leaves nothing in {}", runs.display());
}

#[test]
fn a_limit_is_kept_or_refused_by_name() {
    let home = Home::new();
    let output = home.executr(&["run", "--pids", "20", "--", "sh", "-c", "echo ran"]).output().unwrap();
    if output.status.success() {
        assert_eq!(text(&output.stdout), "ran\n");
    } else {
        let told = text(&output.stderr);
        assert!(told.contains("pids"), "{told}");
        assert_eq!(output.status.code(), Some(125));
    }
}

#[test]
fn standard_input_is_not_ours_to_lose() {
    let home = Home::new();
    let mut run = home.executr(&["run", "--", "cat"]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Jobs read nothing: they behave the same wherever they run.
    drop(run.stdin.take().unwrap().write_all(b"not for the job"));
    let output = run.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout), output.status.code()), (String::new(), Some(0)));
}
