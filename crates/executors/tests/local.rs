//! The conformance suite against `local`, and what only `local` does.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod conformance;

use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::rig::{Outcome, Rig, plan, run, sh};
use executr_executors::contract::{Executor, ExecutorError, Exit, KeeperError, Place, Workspace};
use executr_executors::local::{Cgroups, KeeperOptions, LocalExecutor};

async fn workspace(cgroups: Cgroups, work_dir: &std::path::Path) -> Arc<dyn Workspace> {
    let keeper = KeeperOptions { program: executr_tests::program::agent(), args: vec![], cgroups };
    LocalExecutor { work_dir: work_dir.to_owned(), keeper }.setup_workspace().await.unwrap()
}

mod with_cgroups_where_writable {
    async fn rig() -> super::Rig {
        let temp = tempfile::tempdir().unwrap();
        let workspace = super::workspace(super::Cgroups::WhereWritable, &temp.path().join("work")).await;
        super::Rig { workspace, directory: temp }
    }
    crate::conformance!(rig);
}

mod without_cgroups {
    async fn rig() -> super::Rig {
        let temp = tempfile::tempdir().unwrap();
        let workspace = super::workspace(super::Cgroups::Never, &temp.path().join("work")).await;
        super::Rig { workspace, directory: temp }
    }
    crate::conformance!(rig);
}

async fn rig() -> Rig {
    let temp = tempfile::tempdir().unwrap();
    let workspace = workspace(Cgroups::WhereWritable, &temp.path().join("work")).await;
    Rig { workspace, directory: temp }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_keeper_fails_the_step_and_the_next_job_gets_another() {
    let rig = rig().await;
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let pids = rig.directory.path().join("pids");
    let script = format!("echo $PPID $$ > {0}.part; mv {0}.part {0}; sleep 60", pids.display());
    let mut execution = sandbox.execute(sh(&script)).await.unwrap();
    let error = loop {
        tokio::select! {
            event = execution.next() => match event {
                Ok(event) => assert!(event.is_some(), "an end that nobody has seen"),
                Err(error) => break error,
            },
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        if let Some(keeper) = std::fs::read_to_string(&pids).ok().and_then(|text| text.split(' ').next()?.parse().ok())
        {
            let keeper = rustix::process::Pid::from_raw(keeper).unwrap();
            let _ = rustix::process::kill_process(keeper, rustix::process::Signal::KILL);
        }
    };
    assert!(matches!(error, ExecutorError::Agent(KeeperError::Died { .. })), "{error}");
    drop(execution);
    sandbox.cleanup().await.unwrap();
    drop(sandbox);
    let job = std::fs::read_to_string(&pids).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::path::Path::new("/proc").join(&job).exists() {
        assert!(Instant::now() < deadline, "what the dead keeper ran still runs");
        tokio::task::yield_now().await;
    }
    assert_eq!(run(&rig, plan(), "echo well").await, Outcome::exited(0, "well\n"));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_stops_its_keeper_can_still_be_ended() {
    let rig = rig().await;
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let stopped = rig.directory.path().join("stopped");
    let script = format!("kill -STOP $PPID; touch {}; sleep 60", stopped.display());
    let mut execution = sandbox.execute(sh(&script)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !stopped.exists() {
        assert!(Instant::now() < deadline, "the job never ran");
        tokio::task::yield_now().await;
    }
    execution.end(Duration::ZERO).await.unwrap();
    let error = loop {
        match execution.next().await {
            Ok(event) => assert!(event.is_some(), "an end that nobody has seen"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ExecutorError::Agent(KeeperError::Silent)), "{error}");
    drop(execution);
    sandbox.cleanup().await.unwrap();
    drop(sandbox);
    assert_eq!(run(&rig, plan(), "echo well").await, Outcome::exited(0, "well\n"));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keepers_are_used_again() {
    let rig = rig().await;
    let first = run(&rig, plan(), "echo $PPID").await;
    assert_eq!(run(&rig, plan(), "echo $PPID").await, first);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_may_start_in_a_directory_that_stays() {
    let rig = rig().await;
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("before"), "").unwrap();
    let mut job = plan();
    job.place = Place::Directory(place.path().to_owned());
    assert_eq!(run(&rig, job, "ls -A; touch after").await, Outcome::exited(0, "before\n"));
    assert!(place.path().join("after").exists());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_dropped_in_the_middle_is_cleaned_up_by_the_next() {
    let rig = rig().await;
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let directory = sandbox.directory().to_owned();
    let mut step = sh("touch left; sleep 60");
    step.last = false;
    let mut execution = sandbox.execute(step).await.unwrap();
    execution.next().await.unwrap();
    drop(execution);
    drop(sandbox);
    assert_eq!(run(&rig, plan(), "exit 7").await.exit, Some(Exit::Code(7)));
    assert!(!directory.exists());
    rig.end().await;
}
