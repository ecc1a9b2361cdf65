//! Jobs whose place is set up by scripts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use executr_api::output::{Record, Stream};
use executr_api::{Artifact, Fence, Outcome, RunContext, WorkspaceId, WorkspaceJob, WorkspaceLease};
use executr_spec::workflow::{ArtifactInput, ArtifactOutput, ExecutorChoice, WorkflowJob};
use executr_spec::{Condition, Digest, ExecutorKind, JobSpec, RunId, Step, StepCommand};
use executr_tree::{BlobSource, Manifest, SnapshotOptions, snapshot};
use executr_worker::{Policy, WorkerOptions};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::Rig;

fn step(script: &str) -> Step {
    Step::new(StepCommand::Run(script.to_owned()))
}

fn allow(options: &mut WorkerOptions) {
    options.policy = Policy { hooks: true, ..Policy::default() };
}

fn job(name: &str, hooks: &Value, steps: Vec<Step>) -> JobSpec {
    let workflow = WorkflowJob {
        workflow: "ci".to_owned(),
        name: name.to_owned(),
        executor: ExecutorChoice { kind: ExecutorKind::Hooks, name: "mine".to_owned(), options: hooks.clone() },
        ..WorkflowJob::default()
    };
    JobSpec { workflow: Some(Box::new(workflow)), ..JobSpec::new(steps) }
}

fn id() -> WorkspaceId {
    WorkspaceId { run: RunId(Uuid::from_u128(7)), executor: "mine".to_owned(), generation: 1 }
}

fn submit(rig: &Rig, spec: &JobSpec, artifacts: Vec<Artifact>) -> Fence {
    let jobs = [("build", &["compile", "2"][..]), ("test", &["1"])].map(|(name, steps)| WorkspaceJob {
        name: name.to_owned(),
        steps: steps.iter().map(|&step| step.to_owned()).collect(),
    });
    let workspace = Some(WorkspaceLease { id: id(), jobs: jobs.into() });
    rig.coordinator.submit_in(spec, Some(RunContext { run: id().run, needs: BTreeMap::new(), artifacts, workspace }))
}

fn text(rig: &Rig, fence: Fence) -> String {
    let mut text = Vec::new();
    for record in rig.coordinator.output(fence) {
        if let Record::Data { stream: Stream::Stdout | Stream::Stderr, bytes } = record {
            text.extend_from_slice(&bytes);
        }
    }
    String::from_utf8(text).unwrap()
}

fn keep(rig: &Rig, directory: &Path) -> Digest {
    let tree = snapshot(directory, &SnapshotOptions::everything()).unwrap();
    for digest in tree.manifest().blobs().into_iter().chain([tree.digest()]) {
        let mut bytes = Vec::new();
        tree.open_blob(digest).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        rig.coordinator.change(|state| state.blobs.insert(digest, bytes.into()));
    }
    tree.digest()
}

/// Waits until the worker has told that the workspace is clean.
async fn cleaned(rig: &Rig) {
    rig.coordinator.change(|state| state.workspaces.push(id()));
    rig.coordinator
        .until("the workspace to be clean", |state| {
            state.reports.iter().any(|report| report.cleaned.contains(&id())).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_is_set_up_once_for_all_its_jobs_and_cleaned_up_on_the_coordinators_word() {
    let rig = Rig::start(allow).await;
    let log = rig.directory.path().join("log");
    let log = log.display();
    let hooks = json!({
        "setup_workspace": format!("echo setup >> {log}; printf '%s' \"$EXECUTR_WORKSPACE_STEPS\" >> {log}\nexport SHARED=yes PLACE=$PWD/jobs; mkdir $PLACE"),
        "setup_job": "JOB_DIR=$PLACE/$EXECUTR_JOB_NAME; export JOB_DIR; mkdir \"$JOB_DIR\"; cd \"$JOB_DIR\"",
        "execute": "echo \"> $EXECUTR_STEP_NAME\"; \"$EXECUTR_STEP\"",
        "cleanup_job": format!("cd /; rm -r \"$JOB_DIR\"; echo cleaned $EXECUTR_JOB_NAME >> {log}"),
        "cleanup_workspace": format!("rmdir $PLACE; echo gone $SHARED >> {log}"),
    });
    let mut named = step("echo $SHARED $A; basename $PWD");
    named.name = Some("compile".to_owned());
    named.env.insert("A".to_owned(), "declared".to_owned());
    let build = submit(&rig, &job("build", &hooks, vec![named, step("pwd > file; echo n=1 >> $STEP_OUTPUT")]), vec![]);
    let result = rig.coordinator.result(build).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?} {}", text(&rig, build));
    assert_eq!(text(&rig, build), "> compile\nyes declared\nbuild\n> 2\n");
    assert_eq!(result.outputs.get("n").map(String::as_str), Some("1"));
    let argv = Step::new(StepCommand::Argv(vec![
        "sh".into(),
        "-c".into(),
        "echo \"$1\"; exit 3".into(),
        "sh".into(),
        "it's".into(),
    ]));
    let test = submit(&rig, &job("test", &hooks, vec![argv]), vec![]);
    let result = rig.coordinator.result(test).await;
    assert_eq!((result.outcome, result.exit_code), (Outcome::Failed, Some(3)));
    assert_eq!(result.error_message.as_deref(), Some("hook `execute`, line 1: exit code 3"));
    assert_eq!(text(&rig, test), "> 1\nit's\n");
    cleaned(&rig).await;
    assert_eq!(
        fs::read_to_string(rig.directory.path().join("log")).unwrap(),
        "setup\nbuild\tcompile\nbuild\t2\ntest\t1\ncleaned build\ncleaned test\ngone yes\n"
    );
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_fails_is_named_with_its_line_and_what_was_begun_is_cleaned_up() {
    let rig = Rig::start(allow).await;
    let log = rig.directory.path().join("log");
    let cleanup = format!("echo $EXECUTR_JOB_NAME $HALF >> {}", log.display());
    for (name, hooks, told) in [
        (
            "a",
            json!({"setup_workspace": "export HALF=half\n\nfalse\necho never", "cleanup_workspace": cleanup}),
            "hook `setup_workspace`, line 3: exit code 1",
        ),
        (
            "b",
            json!({"setup_job": "f() {\n  export HALF=half\n  (exit 7)\n}\nf", "cleanup_job": cleanup}),
            "hook `setup_job`, line 3: exit code 7",
        ),
        (
            "c",
            json!({"execute": "export HALF=half; kill -9 $$", "cleanup_job": cleanup}),
            "hook `execute`: killed by signal 9 (SIGKILL)",
        ),
    ] {
        let mut spec = job(name, &hooks, vec![step("echo ran")]);
        spec.workflow.as_mut().unwrap().executor.name = name.to_owned();
        let run = RunContext { run: id().run, needs: BTreeMap::new(), artifacts: vec![], workspace: None };
        let result = rig.coordinator.result(rig.coordinator.submit_in(&spec, Some(run))).await;
        assert_eq!((result.outcome, result.error_message.as_deref()), (Outcome::Failed, Some(told)));
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "a half\nb half\nc\n");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_setup_that_failed_the_next_job_begins_anew() {
    let rig = Rig::start(|options| {
        allow(options);
        options.slots = 2;
    })
    .await;
    let tried = rig.directory.path().join("tried");
    let hooks = json!({
        "setup_workspace": format!("echo x >> {0}; test $(wc -l < {0}) -ge 2; export SET=up", tried.display()),
    });
    let both = ["build", "test"].map(|name| submit(&rig, &job(name, &hooks, vec![step("echo $SET")]), vec![]));
    let mut outcomes = Vec::new();
    for fence in both {
        outcomes.push(rig.coordinator.result(fence).await.outcome);
    }
    outcomes.sort_by_key(|outcome| *outcome == Outcome::Succeeded);
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Succeeded]);
    assert!(both.iter().any(|fence| text(&rig, *fence) == "up\n"));
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleanup_is_done_after_a_cancellation_and_when_the_worker_ends() {
    let rig = Rig::start(allow).await;
    let here = rig.directory.path().display().to_string();
    let hooks = json!({
        "setup_workspace": "true",
        "setup_job": format!("touch {here}/began; sleep 60"),
        "cleanup_job": format!("touch {here}/cleaned-job"),
        "cleanup_workspace": format!("touch {here}/cleaned-workspace"),
    });
    let fence = submit(&rig, &job("build", &hooks, vec![step("echo never")]), vec![]);
    let there = |name: &str| Path::new(&here).join(name).exists();
    rig.coordinator.until("the hook", |_| there("began").then_some(())).await;
    rig.coordinator.change(|state| state.cancels.push(fence));
    assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Cancelled);
    assert!(there("cleaned-job") && !there("cleaned-workspace"));
    rig.shutdown.drain();
    let (_, _, directory) = rig.end().await;
    assert!(there("cleaned-workspace"));
    let left: Vec<_> = fs::read_dir(directory.path().join("jobs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_once_no_step_runs_on_and_the_place_is_cleaned_up_even_so() {
    let rig = Rig::start(allow).await;
    let here = rig.directory.path().display().to_string();
    let hooks = json!({
        "cleanup_job": format!("touch {here}/cleaned-job"),
        "cleanup_workspace": format!("touch {here}/cleaned-workspace"),
    });
    // Deaf to SIGTERM, and with something meant for a cancellation behind it.
    let mut after = step(&format!("trap '' TERM; touch {here}/after; while :; do sleep 0.05; done"));
    after.condition = Condition::parse("always()");
    let mut last = step(&format!("touch {here}/last"));
    last.condition = Condition::parse("always()");
    let first = step(&format!("touch {here}/began; sleep 60"));
    let fence = submit(&rig, &job("build", &hooks, vec![first, after, last]), vec![]);
    let there = |name: &str| Path::new(&here).join(name).exists();
    rig.coordinator.until("the first step", |_| there("began").then_some(())).await;
    rig.coordinator.change(|state| state.cancels.push(fence));
    rig.coordinator.until("what is meant for it", |_| there("after").then_some(())).await;
    rig.coordinator.change(|state| state.at_once.push(fence));
    assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Cancelled);
    assert!(there("cleaned-job") && !there("last"));
    rig.shutdown.drain();
    let (_, _, _directory) = rig.end().await;
    assert!(there("cleaned-workspace") && !there("last"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_are_run_only_where_that_is_allowed() {
    let rig = Rig::start(|_| ()).await;
    let result = rig.coordinator.result(submit(&rig, &job("build", &json!({}), vec![step("true")]), vec![])).await;
    assert!(result.error_message.is_some_and(|message| message.contains("--allow hooks")));
    assert!(rig.coordinator.change(|state| {
        state.reports.iter().all(|report| !report.worker.offers.executors.contains(&ExecutorKind::Hooks))
    }));
    rig.drain().await;
}

/// The custom executor of the document this one follows, with its interpolations filled in: a workspace at a fixed path,
/// job directories below it, artifacts copied by `cp -r`. And its local one, which copies the repository from `$PWD`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_written_for_the_original_run_as_they_are() {
    let rig = Rig::start(allow).await;
    let place = rig.directory.path().join("workspace");
    let place = place.display();
    let custom = json!({
        "copy_repo": true,
        "setup_workspace": format!("echo \"Setting up workspace with 2 actions\"\nmkdir -p {place}\n"),
        "cleanup_workspace": format!("rm -rf {place}\n"),
        "setup_job": format!("mkdir -p {place}/jobs/${{EXECUTR_JOB_NAME}}\n"),
        "execute": format!("cd {place}/jobs/${{EXECUTR_JOB_NAME}}\n\"$EXECUTR_STEP\"\n"),
        "cleanup_job": "# Optional cleanup\n",
        "save_artifact": format!("cp -r \"{place}/jobs/${{EXECUTR_JOB_NAME}}/${{EXECUTR_ARTIFACT_PATH}}\" \"$NIXACTIONS_ARTIFACTS_DIR/${{EXECUTR_ARTIFACT}}/\"\n"),
        "restore_artifact": format!("cp -r \"$NIXACTIONS_ARTIFACTS_DIR/${{EXECUTR_ARTIFACT}}/\"* \"{place}/jobs/${{EXECUTR_JOB_NAME}}/${{EXECUTR_ARTIFACT_PATH}}/\"\n"),
    });
    let mut build = job("build", &custom, vec![step("mkdir -p dist; echo made > dist/app; pwd")]);
    build.workflow.as_mut().unwrap().outputs = vec![ArtifactOutput { name: "app".into(), path: "dist/app".into() }];
    let fence = submit(&rig, &build, vec![]);
    let made = rig.coordinator.result(fence).await;
    assert_eq!(made.outcome, Outcome::Succeeded, "{made:?}");
    assert_eq!(text(&rig, fence), format!("Setting up workspace with 2 actions\n{place}/jobs/build\n"));
    let manifest = rig.coordinator.change(|state| Manifest::parse(&state.blobs[&made.artifacts[0].tree]).unwrap());
    assert_eq!(manifest.entries().iter().map(|entry| entry.path.clone()).collect::<Vec<_>>(), [Path::new("app")]);
    let mut test = job("test", &custom, vec![step("cat app")]);
    test.workflow.as_mut().unwrap().inputs =
        vec![ArtifactInput { name: "app".into(), from: "build".into(), path: String::new() }];
    let fence = submit(&rig, &test, made.artifacts);
    let result = rig.coordinator.result(fence).await;
    assert_eq!((result.outcome, text(&rig, fence).as_str()), (Outcome::Succeeded, "made\n"), "{result:?}");
    cleaned(&rig).await;
    assert!(!rig.directory.path().join("workspace").exists());

    let temp = rig.directory.path().display();
    let local = json!({
        "setup_workspace": format!("WORKSPACE_DIR_LOCAL=\"{temp}/nixactions/$WORKFLOW_ID/local\"\nmkdir -p \"$WORKSPACE_DIR_LOCAL/jobs\"\nexport WORKSPACE_DIR_LOCAL\n"),
        "setup_job": "JOB_DIR=\"$WORKSPACE_DIR_LOCAL/jobs/${EXECUTR_JOB_NAME}\"\nmkdir -p \"$JOB_DIR\"\n\n# Copy repository if enabled\nif [ \"$NIXACTIONS_COPY_REPO\" = \"true\" ]; then\n  cp -r \"$PWD\"/* \"$JOB_DIR/\"\nfi\n\ncd \"$JOB_DIR\"\n",
        "execute": "# Set environment\nexport KEY=\"value\"\n\n# Execute actions\nfor action in \"$EXECUTR_STEP\"; do\n  $action\ndone\n",
        "cleanup_workspace": "rm -rf \"$WORKSPACE_DIR_LOCAL\"\n",
    });
    let repository = tempfile::tempdir().unwrap();
    fs::write(repository.path().join("README"), "read me\n").unwrap();
    let mut spec = job("build", &local, vec![step("cat README; echo $KEY; pwd")]);
    spec.workflow.as_mut().unwrap().source = Some(keep(&rig, repository.path()));
    let fence = submit(&rig, &spec, vec![]);
    assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Succeeded);
    let directory = format!("{temp}/nixactions/{}/local", id().run);
    assert_eq!(text(&rig, fence), format!("read me\nvalue\n{directory}/jobs/build\n"));
    rig.drain().await;
    assert!(!Path::new(&directory).exists());
}
