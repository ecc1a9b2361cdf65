//! Workflows in containers, through the program: what runs here runs there, and nothing is left behind.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use executr_tests::background::{Background, Home};
use executr_tests::docker::{self, Engine, IMAGE, IMAGE_OF_ANN};
use executr_tests::program::{contained_agent, root};
use rustix::process::Signal;
use serde_json::Value;

use crate::system::{System, eventually, signal, spawn, text};

/// Examples whose jobs are all on one executor, and how they name it. (Where the point is how long something takes, the start
/// of a container counts too.)
const EXAMPLES: [&str; 7] = ["parallel", "diamond", "matrix", "artifacts", "tries", "continue", "results"];
const LOCAL: &str = "executor: { kind: local,";

/// An engine, and the agent for its containers.
fn engine() -> Option<Engine> {
    let engine = docker::engine()?;
    drop(contained_agent());
    Some(engine)
}

fn executr(home: &Home, engine: &Engine, arguments: &[&str]) -> Command {
    let mut command = home.executr(arguments);
    command.env("DOCKER_HOST", engine.address());
    command
}

/// A workflow in a file of its own.
fn file(home: &Home, name: &str, content: &str) -> String {
    let path = home.path().join(name).with_extension("yaml");
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// A name only one test has, to find its containers by.
fn unique(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

fn label(workflow: &str) -> String {
    format!("executr.workflow={workflow}")
}

/// How many containers and networks of a workflow there are.
fn left(engine: &Engine, workflow: &str) -> [usize; 2] {
    [engine.count(&label(workflow)), engine.count_networks(&label(workflow))]
}

/// Of each job, how it ended and what it wrote.
fn outcome(output: &Output) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text(&output.stdout).lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let Some(job) = line["job"].as_str() else { continue };
        let said = [&line["event"], &line["step"], &line["stream"], &line["text"], &line["exit_code"]];
        lines.push(format!("{job}: {}", said.map(Value::to_string).join(" ")));
    }
    // Jobs run side by side, and the two streams of one are read one after the other.
    lines.sort();
    lines
}

#[test]
fn examples_come_to_the_same_in_containers() {
    let Some(engine) = engine() else { return };
    for example in EXAMPLES {
        let path = root().join("examples/workflows").join(example).with_extension("yaml");
        let content = fs::read_to_string(&path).unwrap();
        assert_eq!((content.matches(LOCAL).count(), content.matches("executor:").count()), (1, 1), "{example}");
        let run = |executor: &str| {
            let home = Home::new();
            let changed = content.replace(LOCAL, executor);
            // Files and the repository are looked for from where the example stands.
            let copy = home.path().join("workflows");
            copied(&root().join("examples/workflows"), &copy);
            let file = copy.join(example).with_extension("yaml");
            fs::write(&file, changed).unwrap();
            let mut command = executr(&home, &engine, &["run", "--format", "json"]);
            let output = command.arg(file).current_dir(&copy).output().unwrap();
            (output.status.code(), outcome(&output), text(&output.stderr))
        };
        let (code, lines, _) = run(LOCAL);
        for mode in ["shared", "isolated"] {
            let executor = format!("executor: {{ kind: oci, image: {IMAGE}, network: none, mode: {mode},");
            let (contained_code, contained, told) = run(&executor);
            assert_eq!((contained_code, &contained), (code, &lines), "{example}, {mode}: {told}");
        }
    }
}

fn copied(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_command_runs_in_an_image_with_the_repository_around_it() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    let repository = home.path().join("repository");
    fs::create_dir_all(repository.join("src/deep")).unwrap();
    fs::write(repository.join("top"), "top\n").unwrap();
    fs::write(repository.join("src/deep/file"), "deep\n").unwrap();
    fs::create_dir(repository.join(".git")).unwrap();
    let run = |arguments: &[&str]| {
        let words = [&["run", "--image", IMAGE], arguments].concat();
        let output = executr(&home, &engine, &words).current_dir(repository.join("src")).output().unwrap();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    let script = "cat ../top deep/file; echo \"$A\" >&2; exit 3";
    let found = run(&["--env", "A=${{ b }}", "--", "sh", "-c", script]);
    assert_eq!(found, ("top\ndeep\n".to_owned(), "${{ b }}\n".to_owned(), Some(3)));
    let found = run(&["--files", "deep:there", "--", "find", "..", "-type", "f"]);
    assert_eq!(found, ("../src/there/file\n".to_owned(), String::new(), Some(0)));
}

#[test]
fn the_example_runs_as_it_is() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    let output = executr(&home, &engine, &["run", "examples/containers.yaml"]).current_dir(root()).output().unwrap();
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}");
    for line in ["[check] hello from a container", "[check] 1000", "[check] and nothing else can be written"] {
        assert!(told.lines().any(|found| found == line), "no line {line:?} in {told}");
    }
}

#[test]
fn the_example_of_steps_with_images_runs_as_it_is() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    let output = executr(&home, &engine, &["run", "examples/step-images.yaml"]).current_dir(root()).output().unwrap();
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}");
    for line in [
        "[release] made here",
        "[release] version 1.4, signed by nobody (1000)",
        "[check-libc-musl] from the job's container",
        "[check-libc-musl] and from the step's",
    ] {
        assert!(told.lines().any(|found| found == line), "no line {line:?} in {told}");
    }
    assert_eq!(engine.count(&label("step-images")), 0);
}

#[test]
fn a_step_in_a_container_of_its_own_shares_only_the_job_directory() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    let own = format!("image: {{name: {IMAGE}, user: ann}}");
    for (at, executor) in [
        "{kind: local}".to_owned(),
        format!("{{kind: oci, image: {IMAGE}, network: none}}"),
        format!("{{kind: oci, image: {IMAGE_OF_ANN}, network: none, mode: isolated}}"),
    ]
    .iter()
    .enumerate()
    {
        let name = unique(&format!("imaged-{at}"));
        let content = format!(
            "name: {name}
jobs:
  a:
    copy_repo: false
    executor: {executor}
    files: {{given: text}}
    steps:
      - run: |
          set -e; mkdir -p sub; echo a > sub/file; echo 'A=1' >> $JOB_ENV; touch /tmp/executr-{name} || :
      - {own}
        workdir: sub
        retry: {{max_attempts: 2, min_time: 10ms}}
        run: |
          set -e; test -n \"$FROM_IMAGE\"; test $(id -u) = 1000; test -f ../given; test $A = 1; test ! -e /tmp/executr-{name}
          echo \"try $(cat tried 2>/dev/null)\"; echo again >> tried; test $(wc -l < tried) = 2; rm file; echo 'B=2' >> $JOB_ENV
          echo c=3 >> $STEP_OUTPUT; mkdir -m 700 mine; echo x > mine/x
      - name: after
        env: {{C: '${{{{ previous_step.outputs.c }}}}'}}
        run: |
          set -e; test ! -e sub/file; test $B$C = 23; cat sub/mine/x; echo y >> sub/mine/x; rm -f /tmp/executr-{name}
      - {own}
        continue_on_error: true
        run: exit 3
      - {own}
        if: \"! test -e sub\"
        run: exit 4
"
        )
        .replace("\\\"", "\"");
        let output = executr(&home, &engine, &["run", &file(&home, &name, &content)]).output().unwrap();
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{executor}: {told}");
        assert!(told.contains("try again"), "{executor}: {told}");
        assert_eq!(engine.count(&label(&name)), 0, "{executor}");
    }
}

#[test]
fn a_step_whose_image_is_not_there_fails() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    let content = "jobs: {a: {copy_repo: false, executor: local, steps: [{image: no.example/such, run: 'true'}]}}";
    let path = file(&home, "missing", content);
    let output = executr(&home, &engine, &["run", &path]).output().unwrap();
    let told = text(&output.stdout);
    assert!(!output.status.success() && told.contains("no.example/such"), "{told}");
}

const MODES: [&str; 2] = ["shared", "isolated"];

/// A workflow whose job says `ready` and waits in a container.
fn waiting(home: &Home, name: &str, mode: &str) -> String {
    // Both kinds: one with a network of its run, one without.
    let network = if mode == "shared" { "bridge" } else { "none" };
    let content = format!(
        "name: {name}\njobs:\n  wait:\n    copy_repo: false\n    timeout: 60s\n    executor: {{kind: oci, image: {IMAGE}, \
         network: {network}, mode: {mode}}}\n    steps: ['echo ready; sleep 1000']\n"
    );
    file(home, name, &content)
}

/// Starts it and waits until its job waits.
fn started(home: &Home, engine: &Engine, name: &str, mode: &str) -> std::process::Child {
    let file = waiting(home, name, mode);
    let log = home.path().join(format!("{name}.log"));
    let mut command = executr(home, engine, &["run", &file]);
    let log_file = fs::File::create(&log).unwrap();
    let run = command.stdout(log_file.try_clone().unwrap()).stderr(log_file).spawn().unwrap();
    eventually("the job waits", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("[wait] ready")).then_some(())
    });
    assert_eq!(engine.count(&label(name)), 1, "{mode}");
    run
}

#[test]
fn a_cancelled_run_leaves_no_container() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    for mode in MODES {
        let name = unique(&format!("cancelled-{mode}"));
        let mut run = started(&home, &engine, &name, mode);
        signal(&run, Signal::INT);
        assert_eq!(run.wait().unwrap().code(), Some(130));
        assert_eq!(left(&engine, &name), [0, 0], "{mode}");
    }
}

#[test]
fn a_job_that_takes_too_long_leaves_no_container() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    for mode in MODES {
        let name = unique(&format!("late-{mode}"));
        let file = waiting(&home, &name, mode);
        fs::write(&file, fs::read_to_string(&file).unwrap().replace("timeout: 60s", "timeout: 1s")).unwrap();
        let output = executr(&home, &engine, &["run", &file]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("timed out after 1s"), "{}", text(&output.stdout));
        assert_eq!(engine.count(&label(&name)), 0, "{mode}");
    }
}

#[test]
fn what_a_killed_run_leaves_is_gone_with_the_next_and_nothing_else_is() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    let living_name = unique("living");
    let mut living = started(&home, &engine, &living_name, "shared");
    for mode in MODES {
        let name = unique(&format!("killed-{mode}"));
        let mut run = started(&home, &engine, &name, mode);
        run.kill().unwrap();
        run.wait().unwrap();
        let next = file(
            &home,
            "next",
            &format!(
                "jobs: {{a: {{copy_repo: false, executor: {{kind: oci, image: {IMAGE}, network: none}}, steps: ['true']}}}}\n"
            ),
        );
        let output = executr(&home, &engine, &["run", &next]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(left(&engine, &name), [0, 0], "{mode}");
        assert_eq!(left(&engine, &living_name), [1, 1], "whoever lives keeps what is theirs");
    }
    signal(&living, Signal::INT);
    living.wait().unwrap();
}

#[test]
fn a_job_whose_container_somebody_removed_is_repeated_in_another() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    for mode in MODES {
        let name = unique(&format!("removed-{mode}"));
        let content = format!(
            "name: {name}\njobs:\n  a:\n    copy_repo: false\n    job_retry: {{max_retries: 1, min_time: 10ms}}\n    \
             executor: {{kind: oci, image: {IMAGE}, network: none, mode: {mode}}}\n    \
             steps: ['echo attempt $EXECUTR_ATTEMPT; test $EXECUTR_ATTEMPT = 2 || sleep 1000']\n"
        );
        let file = file(&home, &name, &content);
        let log = home.path().join(format!("{name}.log"));
        let log_file = fs::File::create(&log).unwrap();
        let mut command = executr(&home, &engine, &["run", &file]);
        let mut run = command.stdout(log_file.try_clone().unwrap()).stderr(log_file).spawn().unwrap();
        let said = || fs::read_to_string(&log).unwrap_or_default();
        eventually("the first attempt runs", || said().contains("[a] attempt 1").then_some(()));
        engine.remove(&label(&name));
        assert_eq!(run.wait().unwrap().code(), Some(0), "{mode}: {}", said());
        assert!(said().contains("[a] attempt 2"), "{mode}: {}", said());
        assert_eq!(engine.count(&label(&name)), 0, "{mode}");
    }
}

#[test]
fn an_executor_runs_the_containers_it_may() {
    let Some(engine) = engine() else { return };
    let system = System::server(&[]);
    let start = |name: &str, flags: &[&str]| {
        let work = system.home.path().join(format!("work-{name}"));
        let mut command = system.executr(&["executor", "--name", name, "--work-dir", work.to_str().unwrap()]);
        Background::start(&system.home, name, command.args(flags).env("DOCKER_HOST", engine.address()))
    };
    let workflow = |name: &str, more: &str| {
        let content = format!(
            "name: {name}\ndefaults: {{copy_repo: false}}\njobs:\n  a:\n    executor: {{kind: oci, image: {IMAGE}, \
             network: none{more}}}\n    steps: ['echo from $FROM_IMAGE']\n"
        );
        file(&system.home, name, &content)
    };
    let _without = start("without", &[]);
    let plain = workflow("plain", "");
    let submitted = spawn(&mut system.executr(&["submit", "--wait", &plain]));
    let told = eventually("the job waits for an executor with containers", || {
        let runs = system.output(&["runs", "--output", "json"]);
        let runs: Value = serde_json::from_slice(&runs.stdout).ok()?;
        let run = system.output(&["runs", runs[0]["id"].as_str()?, "--output", "json"]);
        let run: Value = serde_json::from_slice(&run.stdout).ok()?;
        system.job(run["jobs"][0]["id"].as_str()?)["waiting_for"].as_str().map(str::to_owned)
    });
    assert!(told.contains("executor oci"), "{told}");
    let _with = start("with", &["--allow", "oci"]);
    let output = submitted.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("[a] from image"), "{}", text(&output.stdout));
    let mounting = workflow("mounting", ", mounts: ['/etc:/host-etc:ro']");
    let output = system.output(&["submit", "--wait", &mounting]);
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.code() == Some(1) && told.contains("--allow oci-host"), "{told}");
}

#[test]
fn what_a_killed_run_leaves_can_be_cleaned_up_by_hand() {
    let Some(engine) = engine() else { return };
    let home = Home::new();
    let name = unique("cleaned");
    let mut run = started(&home, &engine, &name, "shared");
    run.kill().unwrap();
    run.wait().unwrap();
    let work = home.path().join("none");
    let output = executr(&home, &engine, &["clean", "--work-dir", work.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("container "), "{}", text(&output.stdout));
    assert_eq!(left(&engine, &name), [0, 0]);
}

#[test]
fn without_an_engine_the_remedy_is_told() {
    let home = Home::new();
    let nowhere: PathBuf = home.path().join("no.sock");
    let file = waiting(&home, "none", "shared");
    let mut command = home.executr(&["run", &file]);
    let output = command.env("DOCKER_HOST", format!("unix://{}", nowhere.display())).output().unwrap();
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    let names_it = told.contains("no.sock") && told.contains("DOCKER_HOST");
    assert!(output.status.code() == Some(1) && (names_it || told.contains("scripts/build-agent")), "{told}");
}
