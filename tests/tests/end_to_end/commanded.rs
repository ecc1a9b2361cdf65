//! Workflows behind commands of their own, through the program: what can't be is told, and nothing is left behind.

use std::fs;

use executr_tests::background::{Background, Home};
use executr_tests::program::{bubblewrap, contained_agent};
use rustix::process::Signal;
use serde_json::Value;

use crate::system::{System, eventually, signal, spawn, text};

/// A workflow in a file of its own, with one job behind `argv`.
fn file(home: &Home, name: &str, argv: &str, more: &str) -> String {
    let path = home.path().join(name).with_extension("yaml");
    let content = format!(
        "name: {name}\njobs:\n  a:\n    executor: {{kind: command, copy_repo: false, argv: {argv}}}\n    {more}\n"
    );
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

const SANDBOX: &str = "[bwrap, --ro-bind, /, /, --dev, /dev, --proc, /proc, --bind, '{job_directory}', '{job_directory}', \
                       --unshare-pid, '{agent}']";

/// Processes with `word` among their arguments.
fn running(word: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.filter(|command| command.split(|byte| *byte == 0).any(|found| found == word.as_bytes())).count()
}

#[test]
fn a_mistake_in_an_argv_is_told_where_it_stands() {
    let home = Home::new();
    let output = home.executr(&["check", &file(&home, "wrong", "[x, '{agnet}']", "steps: [x]")]).output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("wrong.yaml:4:59") && told.contains("did you mean `agent`"), "{told}");
}

#[test]
fn what_a_command_says_is_told_when_there_is_no_agent() {
    drop(contained_agent());
    let home = Home::new();
    let argv = "[sh, -c, 'echo no place today >&2; exit 5']";
    let output = home.executr(&["run", &file(&home, "none", argv, "steps: [x]")]).output().unwrap();
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("`sh` ended with exit code 5 (no place today)"), "{told}");
}

/// However a run ends, nothing of what its command started goes on.
#[test]
fn a_run_that_is_stopped_or_killed_leaves_nothing() {
    drop(contained_agent());
    let home = Home::new();
    let with_sandbox = bubblewrap();
    // The second one goes on when its agent is gone, unless it is ended.
    let stubborn = "[sh, -c, '{agent}; sleep 1000']";
    for (number, argv) in [(1, SANDBOX), (2, stubborn)] {
        if argv == SANDBOX && !with_sandbox {
            continue;
        }
        for (end, order) in [("stopped", Signal::INT), ("killed", Signal::KILL)] {
            let name = format!("{end}-{number}");
            let word = format!("{}.{number}{}", 1000 + i32::from(end == "killed"), std::process::id());
            let argv = argv.replace("1000", &word);
            let job = format!("steps: ['echo ready; (setsid sleep {word} &) ; sleep {word}']");
            let file = file(&home, &name, &argv, &job);
            let log = home.path().join(format!("{name}.log"));
            let log_file = fs::File::create(&log).unwrap();
            let mut command = home.executr(&["run", &file]);
            let mut run = command.stdout(log_file.try_clone().unwrap()).stderr(log_file).spawn().unwrap();
            eventually("the job waits", || {
                fs::read_to_string(&log).is_ok_and(|log| log.contains("[a] ready") && running(&word) >= 2).then_some(())
            });
            signal(&run, order);
            let status = run.wait().unwrap();
            if order == Signal::INT {
                assert_eq!((status.code(), running(&word)), (Some(130), 0), "{name}");
            }
            eventually("nothing goes on", || (running(&word) == 0).then_some(()));
        }
    }
}

#[test]
fn a_job_that_takes_too_long_is_ended_behind_its_command() {
    if !bubblewrap() {
        return;
    }
    drop(contained_agent());
    let home = Home::new();
    let file = file(&home, "late", SANDBOX, "timeout: 1s\n    steps: ['sleep 1000']");
    let output = home.executr(&["run", &file]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("timed out after 1s"), "{}", text(&output.stdout));
}

#[test]
fn an_executor_runs_commands_when_it_may() {
    drop(contained_agent());
    let system = System::server(&[]);
    let start = |name: &str, flags: &[&str]| {
        let work = system.home.path().join(format!("work-{name}"));
        let mut command = system.executr(&["executor", "--name", name, "--work-dir", work.to_str().unwrap()]);
        Background::start(&system.home, name, command.args(flags))
    };
    let _without = start("without", &[]);
    let plain = file(&system.home, "plain", "['{agent}']", "steps: ['echo behind a command']");
    let submitted = spawn(&mut system.executr(&["submit", "--wait", &plain]));
    let told = eventually("the job waits for an executor that may", || {
        let runs = system.output(&["runs", "--output", "json"]);
        let runs: Value = serde_json::from_slice(&runs.stdout).ok()?;
        let run = system.output(&["runs", runs[0]["id"].as_str()?, "--output", "json"]);
        let run: Value = serde_json::from_slice(&run.stdout).ok()?;
        system.job(run["jobs"][0]["id"].as_str()?)["waiting_for"].as_str().map(str::to_owned)
    });
    assert!(told.contains("executor command"), "{told}");
    let _with = start("with", &["--allow", "command"]);
    let output = submitted.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("[a] behind a command"), "{}", text(&output.stdout));
}
