//! Workflows through the program: every example here and on a fleet, with equal results; and what a user does with runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use executr_tests::background::Home;
use executr_tests::program::{bubblewrap, contained_agent, root};
use rustix::process::Signal;
use serde_json::Value;

use crate::system::{System, signal, spawn, succeed, text};

/// An example, how its run ends, and variables its jobs need.
struct Example {
    file: &'static str,
    ends: &'static str,
    /// The jobs that don't complete, by their states.
    others: &'static [(&'static str, &'static str)],
    /// A line that some job writes.
    says: &'static str,
    secrets: &'static [(&'static str, &'static str)],
    /// The line at which the run is cancelled.
    cancel_at: Option<&'static str>,
}

const fn example(file: &'static str, says: &'static str) -> Example {
    Example { file, ends: "completed", others: &[], says, secrets: &[], cancel_at: None }
}

const EXAMPLES: &[Example] = &[
    example("hello", "hello"),
    example("parallel", "25 passed"),
    Example {
        ends: "failed",
        others: &[("broken", "failed"), ("join", "skipped"), ("look", "skipped")],
        ..example("diamond", "one side held")
    },
    example("matrix", "tested on arch-3"),
    example("artifacts", "notes"),
    Example { others: &[("once", "failed")], ..example("tries", "tried once") },
    Example { secrets: &[("DEPLOY_TOKEN", "s3cr3t-t0k3n")], ..example("secrets", "hello from before") },
    Example { others: &[("job", "failed"), ("step", "failed")], ..example("timeouts", "still here") },
    Example { others: &[("job", "failed")], ..example("continue", "flaky was failure") },
    Example { others: &[("all-skipped", "skipped")], ..example("results", "it was green") },
    example("hooks", "executed by the hook"),
    Example {
        ends: "cancelled",
        others: &[("long", "cancelled"), ("next", "cancelled")],
        cancel_at: Some("waiting to be cancelled"),
        ..example("cancel", "what was begun is put away")
    },
    example("hooks-custom", "Setting up workspace with 3 actions"),
    example("hooks-local", "a copy of the repository"),
    example("providers", "a region of 10 letters: ***"),
    example(BUBBLEWRAP, "made in a sandbox"),
];

/// The one that needs bubblewrap, and the agent as a program of its own.
const BUBBLEWRAP: &str = "bubblewrap";

/// What a run came to: all that must be equal wherever it ran.
#[derive(Debug, PartialEq)]
struct Outcome {
    state: Value,
    jobs: BTreeMap<String, Value>,
    /// Of each job, its events and its steps' in order, without times and places.
    events: BTreeMap<String, Vec<Value>>,
    /// Of each job and stream, what it wrote.
    output: BTreeMap<(String, String), String>,
}

impl Outcome {
    /// From what `--format json` printed, and the run as it stands afterwards.
    fn new(lines: &str, whole: &Value) -> Self {
        let mut events: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut output: BTreeMap<(String, String), String> = BTreeMap::new();
        for line in lines.lines() {
            let mut line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let Some(job) = line["job"].as_str().map(str::to_owned) else { continue };
            if line["event"] == "output" {
                let stream = line["stream"].as_str().unwrap().to_owned();
                let text = output.entry((job, stream)).or_default();
                text.push_str(line["text"].as_str().unwrap());
                text.push('\n');
                continue;
            }
            let fields = line.as_object_mut().unwrap();
            for varies in ["time", "duration_ms", "env"] {
                fields.remove(varies);
            }
            events.entry(job).or_default().push(line);
        }
        let mut jobs = BTreeMap::new();
        for job in whole["jobs"].as_array().unwrap() {
            let mut job = job.clone();
            let fields = job.as_object_mut().unwrap();
            for varies in ["id", "executor_id", "started_at", "completed_at"] {
                fields.remove(varies);
            }
            jobs.insert(job["name"].as_str().unwrap().to_owned(), job);
        }
        Self { state: whole["run"]["state"].clone(), jobs, events, output }
    }
}

fn path(file: &str) -> String {
    root().join("examples/workflows").join(file).with_extension("yaml").display().to_string()
}

/// The id of the newest run in a list.
fn newest(list: &str) -> String {
    let runs: Value = serde_json::from_str(list).unwrap();
    runs[0]["id"].as_str().unwrap_or_else(|| panic!("no run in {list}")).to_owned()
}

impl Example {
    /// How a command ends that shows its run.
    fn exit_code(&self) -> i32 {
        match self.ends {
            "completed" => 0,
            "cancelled" => 130,
            _ => 1,
        }
    }

    /// Runs a command that shows its run to the end, and has it cancelled on the way if it is one for that.
    fn watched(&self, command: &mut Command, cancel: impl FnOnce(&Child)) -> Output {
        let Some(line) = self.cancel_at else { return command.output().unwrap() };
        let mut child = spawn(command);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut seen = Vec::new();
        while !text(&seen).contains(line) {
            assert!(out.read_until(b'\n', &mut seen).unwrap() > 0, "it ended: {}", text(&seen));
        }
        cancel(&child);
        out.read_to_end(&mut seen).unwrap();
        Output { stdout: seen, ..child.wait_with_output().unwrap() }
    }
}

fn here(home: &Home, example: &Example) -> Outcome {
    let mut command = home.executr(&["run", "--format", "json"]);
    for (name, value) in example.secrets {
        command.args(["--secret", name]).env(name, value);
    }
    command.arg(path(example.file)).current_dir(root());
    let output = example.watched(&mut command, |run| signal(run, Signal::INT));
    assert_eq!(
        output.status.code(),
        Some(example.exit_code()),
        "{}: {}{}",
        example.file,
        text(&output.stdout),
        text(&output.stderr)
    );
    let list = home.executr(&["runs", "--here", "--output", "json"]).output().unwrap();
    let id = newest(&text(&list.stdout));
    let whole = home.executr(&["runs", &id, "--output", "json"]).output().unwrap();
    for (_, secret) in example.secrets {
        let told = format!("{}{}{}", text(&output.stdout), text(&output.stderr), text(&whole.stdout));
        assert!(!told.contains(secret), "{}: a secret was shown", example.file);
    }
    let whole = serde_json::from_slice(&whole.stdout).unwrap_or_else(|_| panic!("{}", text(&whole.stderr)));
    Outcome::new(&text(&output.stdout), &whole)
}

fn there(system: &System, example: &Example) -> Outcome {
    let mut command = system.executr(&["submit", "--wait", "--format", "json"]);
    for (name, _) in example.secrets {
        command.args(["--secret", name]);
    }
    command.arg(path(example.file)).current_dir(root());
    let newest_there = || newest(&text(&system.output(&["runs", "--output", "json"]).stdout));
    let output = example.watched(&mut command, |_| {
        succeed(&mut system.executr(&["runs", "--cancel", &newest_there()]));
    });
    assert_eq!(
        output.status.code(),
        Some(example.exit_code()),
        "{}: {}{}",
        example.file,
        text(&output.stdout),
        text(&output.stderr)
    );
    let id = newest_there();
    let whole = system.output(&["runs", &id, "--output", "json"]);
    for (_, secret) in example.secrets {
        let told = format!("{}{}{}", text(&output.stdout), text(&output.stderr), text(&whole.stdout));
        assert!(!told.contains(secret), "{}: a secret was shown", example.file);
    }
    let whole = serde_json::from_slice(&whole.stdout).unwrap_or_else(|_| panic!("{}", text(&whole.stderr)));
    Outcome::new(&text(&output.stdout), &whole)
}

#[test]
fn every_example_is_listed_here() {
    let mut files: Vec<String> = fs::read_dir(root().join("examples/workflows"))
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".yaml").map(str::to_owned)
        })
        .collect();
    files.sort();
    let mut listed: Vec<&str> = EXAMPLES.iter().map(|example| example.file).collect();
    listed.sort_unstable();
    assert_eq!(files, listed);
}

#[test]
fn every_example_comes_to_the_same_here_and_on_a_fleet() {
    let system = System::server(&[]);
    let secrets: Vec<(&str, &str)> = EXAMPLES.iter().flat_map(|example| example.secrets).copied().collect();
    let _executors = ["one", "two"].map(|name| {
        let work = system.home.path().join(format!("work-{name}"));
        let mut command =
            system.executr(&["executor", "--name", name, "--max-jobs", "2", "--allow", "hooks,providers,command"]);
        command.arg("--work-dir").arg(work);
        command.envs(secrets.iter().map(|(secret, value)| (format!("EXECUTR_SECRET_{secret}"), value)));
        executr_tests::background::Background::start(&system.home, name, &mut command)
    });
    let has_bubblewrap = bubblewrap();
    if has_bubblewrap {
        drop(contained_agent());
    }
    for example in EXAMPLES.iter().filter(|example| has_bubblewrap || example.file != BUBBLEWRAP) {
        let home = Home::new();
        let near = here(&home, example);
        let far = there(&system, example);
        assert_eq!(near.state, example.ends, "{}: {near:#?}", example.file);
        let others: Vec<(&str, &str)> = near
            .jobs
            .iter()
            .map(|(name, job)| (name.as_str(), job["state"].as_str().unwrap()))
            .filter(|(_, state)| *state != "completed")
            .collect();
        assert_eq!(others, example.others, "{}", example.file);
        let said = near.output.values().any(|output| output.lines().any(|line| line.contains(example.says)));
        assert!(said, "{}: nobody says {}: {:#?}", example.file, example.says, near.output);
        assert_eq!(near, far, "{}", example.file);
    }
}

/// The jobs of it that need no compiler; the others are what `scripts/check` runs beside this test.
#[test]
fn this_projects_own_checks_are_a_workflow() {
    let file = root().join("examples/self-ci.yaml").display().to_string();
    let tools = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME"].map(|name| (name, std::env::var_os(name)));
    let with_tools = |command: &mut std::process::Command| {
        command.envs(tools.iter().filter_map(|(name, value)| Some((*name, value.clone()?))));
    };
    let system = System::server(&[]);
    let work = system.home.path().join("work-own");
    let mut executor = system.executr(&["executor", "--name", "own", "--allow", "inherit", "--max-jobs", "2"]);
    with_tools(executor.arg("--work-dir").arg(work));
    executor.env("EXECUTR_DATA_DIR", system.home.path().join("own"));
    let _executor = executr_tests::background::Background::start(&system.home, "own", &mut executor);
    let jobs = ["format", "licences", "scripts"];
    for command in [&["run"][..], &["submit", "--wait"]] {
        let mut command = system.executr(command);
        with_tools(&mut command);
        command.env("EXECUTR_DATA_DIR", system.home.path().join("data")).env("XDG_STATE_HOME", system.home.path());
        let output = command.arg(&file).args(jobs).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        for job in jobs {
            assert!(text(&output.stdout).contains(&format!("[{job}] completed")), "{}", text(&output.stdout));
        }
    }
}

#[test]
fn a_wrong_file_is_told_with_line_and_column_and_nothing_runs() {
    let home = Home::new();
    let file = home.path().join("wrong.yaml");
    fs::write(&file, "name: wrong\njobs:\n  a:\n    step:\n      - echo never\n").unwrap();
    for command in ["run", "check"] {
        let output = home.executr(&[command, file.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        let told = text(&output.stderr);
        assert!(told.contains("wrong.yaml:4:5") && told.contains("`steps`"), "{told}");
        assert!(!text(&output.stdout).contains("never"));
    }
}

#[test]
fn a_dry_run_starts_nothing() {
    let home = Home::new();
    let output = home.executr(&["run", "--dry-run", &path("diamond")]).output().unwrap();
    let told = text(&output.stdout);
    assert!(output.status.success() && told.contains("explain") && told.contains("failure()"), "{told}");
    assert!(!Path::new(&home.path().join(".local/state/executr/workflows")).exists());
}

#[test]
fn directories_of_jobs_stay_where_that_is_asked_for() {
    let home = Home::new();
    let file = home.path().join("kept.yaml");
    fs::write(
        &file,
        r#"
name: kept
fail_fast: false
defaults: { executor: { kind: local, copy_repo: false } }
jobs:
  made: { steps: ["mkdir deeper; echo left > deeper/file", "true"] }
  failed:
    job_retry: { max_retries: 1, backoff: constant, min_time: 10ms, max_time: 10ms }
    steps: ["echo $EXECUTR_ATTEMPT > which; exit 3"]
  elsewhere:
    executor: { kind: hooks, copy_repo: false, execute: '"$EXECUTR_STEP"' }
    steps: ["true"]
"#,
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let output = home.executr(&["run", "--keep", file]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    let place = |head: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(head));
        line.map(PathBuf::from).unwrap_or_else(|| panic!("no line {head:?} in {told}"))
    };
    let made = place("[made] kept in ");
    assert_eq!(fs::read_to_string(made.join("deeper/file")).unwrap(), "left\n");
    for (head, attempt) in [("[failed] kept in ", "1\n"), ("[failed] attempt 2 kept in ", "2\n")] {
        assert_eq!(fs::read_to_string(place(head).join("which")).unwrap(), attempt);
    }
    assert!(!told.contains("[elsewhere] kept"), "{told}");
    let removal = place("they go with the run, or by: rm -r ");
    assert!(made.starts_with(&removal), "{told}");
    // Nothing of a run's jobs is left when nobody asks for it.
    fs::remove_dir_all(&removal).unwrap();
    let run = removal.parent().unwrap();
    assert!(!run.join("made").exists());
    let output = home.executr(&["run", "--keep", "--format", "json", file, "made"]).output().unwrap();
    let lines = text(&output.stdout);
    let kept: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["event"] == "directory_kept")
        .collect();
    assert_eq!(kept.len(), 1, "{lines}");
    assert_eq!((&kept[0]["job"], &kept[0]["attempt"]), (&Value::from("made"), &Value::from(1)));
    assert!(Path::new(kept[0]["path"].as_str().unwrap()).join("deeper/file").exists());
    let output = home.executr(&["run", file, "made"]).output().unwrap();
    assert!(output.status.success() && !text(&output.stderr).contains("kept in"), "{}", text(&output.stderr));
    let kept_runs = fs::read_dir(home.path().join(".local/state/executr/workflows")).unwrap();
    let with_directories = kept_runs.filter(|run| run.as_ref().unwrap().path().join("kept").exists()).count();
    assert_eq!(with_directories, 1, "only those of the run before");
}

#[test]
fn a_secret_that_is_not_there_is_missed_before_anything_runs() {
    let home = Home::new();
    for more in [&[][..], &["--resume"]] {
        let mut command = home.executr(&["run", "--secret", "NO_SUCH", &path("hello")]);
        let output = command.args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("--secret NO_SUCH"), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}
