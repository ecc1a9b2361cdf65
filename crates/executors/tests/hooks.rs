//! The conformance suite against `hooks`, as far as a shell between leaves a step as it is, and what only `hooks` does.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

// What a shell changes isn't asked: signals become exit codes, programs that aren't there too, and it adds variables.
#[allow(dead_code, reason = "not every case applies")]
mod conformance;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use conformance::rig::{Outcome, Rig, argv, gather, plan, sh};
use executr_executors::contract::{Act, Executor, Exit, Sandbox, TakeFrom, Workspace};
use executr_executors::hooks::{HooksOptions, HooksWorkspace};
use executr_executors::local::{Cgroups, KeeperOptions, LocalExecutor};
use executr_spec::Digest;

async fn machine(work_dir: &Path) -> Arc<dyn Workspace> {
    let keeper =
        KeeperOptions { program: executr_tests::program::agent(), args: vec![], cgroups: Cgroups::WhereWritable };
    LocalExecutor { work_dir: work_dir.to_owned(), keeper }.setup_workspace().await.unwrap()
}

async fn workspace(work_dir: &Path, options: HooksOptions) -> HooksWorkspace {
    HooksWorkspace::open(machine(work_dir).await, plan().job, options).await.unwrap()
}

/// A hooks workspace and the machine it is on go together.
struct Both(HooksWorkspace, Arc<dyn Workspace>);

#[async_trait::async_trait]
impl Workspace for Both {
    fn limits(&self) -> &executr_executors::contract::LimitOffers {
        self.0.limits()
    }

    async fn setup_job(
        &self,
        job: executr_executors::contract::JobPlan,
    ) -> Result<Box<dyn Sandbox>, executr_executors::contract::ExecutorError> {
        self.0.setup_job(job).await
    }

    async fn cleanup(&self) {
        self.0.cleanup().await;
        self.1.cleanup().await;
    }
}

mod conforming {
    use super::*;

    async fn rig() -> Rig {
        let temp = tempfile::tempdir().unwrap();
        let machine = machine(&temp.path().join("work")).await;
        let hooks = HooksWorkspace::open(Arc::clone(&machine), plan().job, HooksOptions::default()).await.unwrap();
        Rig { workspace: Arc::new(Both(hooks, machine)), directory: temp }
    }

    crate::conformance!(rig: ends:
        exit_codes_are_told,
        ending_gives_time_and_then_takes_it,
        ending_at_once_needs_no_consent,
        nothing_that_forked_away_survives_its_end,
        a_step_is_over_when_its_last_process_is,
        a_dropped_step_is_ended);
    crate::conformance!(rig: bytes:
        no_output_is_none,
        output_is_exact,
        binary_output_is_exact,
        streams_are_told_apart,
        arguments_are_passed_as_they_are,
        long_scripts_run);
}

fn env(variables: &[&str]) -> Vec<Bytes> {
    let all = ["PATH=/usr/local/bin:/usr/bin:/bin"].iter().chain(variables);
    all.map(|variable| Bytes::copy_from_slice(variable.as_bytes())).collect()
}

async fn done(sandbox: &mut dyn Sandbox, act: Act<'_>, variables: &[&str]) -> Option<Outcome> {
    let mut execution = sandbox.act(act, &env(variables)).await.unwrap()?;
    Some(gather(execution.as_mut()).await)
}

async fn said(sandbox: &mut dyn Sandbox, script: &str, variables: &[&str]) -> String {
    let mut step = sh(script);
    (step.env, step.last) = (env(variables), false);
    let mut execution = sandbox.execute(step).await.unwrap();
    let outcome = gather(execution.as_mut()).await;
    assert_eq!(outcome.exit, Some(Exit::Code(0)), "{outcome:?}");
    String::from_utf8(outcome.stdout).unwrap()
}

fn some(script: &str) -> Option<String> {
    Some(script.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hook_leaves_is_there_for_later_ones_of_its_level() {
    let temp = tempfile::tempdir().unwrap();
    let options = HooksOptions {
        setup_workspace: some("export SHARED='a\nb' GONE; unset GONE; mkdir sub; cd sub"),
        setup_job: some("export JOB=1 OVER=hook; NOT=exported; test \"$SHARED\" = $'a\\nb'"),
        ..HooksOptions::default()
    };
    let workspace = workspace(temp.path(), options).await;
    {
        let mut own = workspace.own().await;
        done(&mut *own, Act::SetUp, &["GONE=x"]).await.unwrap();
        assert!(own.directory().ends_with("repository/sub"));
    }
    let look = "basename \"$PWD\"; echo \"$SHARED,$JOB,$OVER,$NOT,$GONE\"";
    let mut first = workspace.setup_job(plan()).await.unwrap();
    done(first.as_mut(), Act::SetUp, &["GONE=x"]).await.unwrap();
    assert_eq!(said(first.as_mut(), look, &["OVER=declared"]).await, "sub\na\nb,1,declared,,\n");
    let mut second = workspace.setup_job(plan()).await.unwrap();
    assert_eq!(said(second.as_mut(), look, &[]).await, "sub\na\nb,,,,\n", "a job's hooks leave nothing to other jobs");
    for mut sandbox in [first, second] {
        sandbox.cleanup().await.unwrap();
    }
    workspace.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_is_cleaned_up_once() {
    let temp = tempfile::tempdir().unwrap();
    let options = HooksOptions {
        setup_job: some("export HALF=1\nfalse\n"),
        cleanup_job: some("echo \"cleanup $HALF\""),
        ..HooksOptions::default()
    };
    let workspace = workspace(temp.path(), options).await;
    let mut sandbox = workspace.setup_job(plan()).await.unwrap();
    assert_eq!(done(sandbox.as_mut(), Act::CleanUp, &[]).await, None, "nothing was begun");
    let failed = done(sandbox.as_mut(), Act::SetUp, &[]).await.unwrap();
    assert_eq!(failed.exit, Some(Exit::Code(1)));
    assert_eq!(sandbox.take_failure().as_deref(), Some("hook `setup_job`, line 2"));
    assert_eq!(done(sandbox.as_mut(), Act::CleanUp, &[]).await, Some(Outcome::exited(0, "cleanup 1\n")));
    assert_eq!(done(sandbox.as_mut(), Act::CleanUp, &[]).await, None);
    sandbox.cleanup().await.unwrap();
    workspace.cleanup().await;
    let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with(".executr-")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifacts_pass_through_a_directory_of_their_own() {
    let temp = tempfile::tempdir().unwrap();
    let options = HooksOptions {
        setup_job: some("mkdir -p place; cd place"),
        save_artifact: some("cp -r \"$EXECUTR_ARTIFACT_PATH\" \"$EXECUTR_ARTIFACTS_DIR/$EXECUTR_ARTIFACT/\""),
        ..HooksOptions::default()
    };
    let workspace = workspace(temp.path(), options).await;
    let mut sandbox = workspace.setup_job(plan()).await.unwrap();
    done(sandbox.as_mut(), Act::SetUp, &[]).await.unwrap();
    said(sandbox.as_mut(), "mkdir dist; echo x > dist/file", &[]).await;
    let path = Path::new("dist");
    done(sandbox.as_mut(), Act::Save { name: "it", path }, &[]).await.unwrap();
    let (offer, mut offered) = tokio::sync::mpsc::unbounded_channel();
    let taken = sandbox.take_tree(TakeFrom::Artifact { name: "it", path }, offer).await.unwrap().unwrap();
    let paths: Vec<_> = taken.manifest.entries().iter().map(|entry| entry.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["dist", "dist/file"]);
    assert_eq!(offered.recv().await.unwrap().digest, Digest::of(b"x\n"));
    let error = sandbox.act(Act::Restore { name: "it", path }, &[]).await.err().unwrap().to_string();
    assert!(error.contains("restore_artifact"), "{error}");
    sandbox.cleanup().await.unwrap();
    workspace.cleanup().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_starts_where_it_says_within_the_hooks_directory() {
    let temp = tempfile::tempdir().unwrap();
    let options = HooksOptions { setup_job: some("mkdir -p \"a b/c\""), ..HooksOptions::default() };
    let workspace = workspace(temp.path(), options).await;
    let mut sandbox = workspace.setup_job(plan()).await.unwrap();
    done(sandbox.as_mut(), Act::SetUp, &[]).await.unwrap();
    let mut step = argv(&[b"sh", b"-c", b"basename \"$PWD\"; echo \"$0\"", b"it's"]);
    (step.workdir, step.last) = (Some("a b/c".into()), false);
    let mut execution = sandbox.execute(step).await.unwrap();
    assert_eq!(gather(execution.as_mut()).await, Outcome::exited(0, "c\nit's\n"));
    drop(execution);
    sandbox.cleanup().await.unwrap();
    workspace.cleanup().await;
}
