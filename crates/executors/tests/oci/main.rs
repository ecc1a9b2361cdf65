//! The conformance suite against `oci`, in both modes, and what only `oci` does. On a real engine.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../conformance/mod.rs"]
mod conformance;
mod networks;
mod registries;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use conformance::rig::{Outcome, Rig, gather, plan, run, run_step, sh};
use executr_executors::contract::{Executor, ExecutorError, Exit, Handover, JobPlan, LimitOffers, Sandbox, Workspace};
use executr_executors::local::{Cgroups, KeeperOptions, LocalExecutor};
use executr_executors::oci::{
    AgentProgram, ContainerError, OciHost, OciHostOptions, OciOptions, OciWorkspace, RegistryLogin,
};
use executr_images::Access;
use executr_tests::docker::{EMPTY_IMAGE, Engine, IMAGE, IMAGE_OF_ANN, engine, podman};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Containers, and the machine whose directories they have.
struct Both {
    containers: OciWorkspace,
    machine: Arc<dyn Workspace>,
}

#[async_trait::async_trait]
impl Workspace for Both {
    fn limits(&self) -> &LimitOffers {
        self.containers.limits()
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        self.containers.setup_job(job).await
    }

    async fn cleanup(&self) {
        self.containers.cleanup().await;
        self.machine.cleanup().await;
    }
}

/// A value only one test has, to find its containers by.
fn tag() -> String {
    plan().job.to_string()
}

async fn open(engine: &Engine, temp: &Path, options: Value, tag: &str) -> Result<Both, ExecutorError> {
    let labels = [("executr.test".to_owned(), tag.to_owned())].into();
    open_on(&host_of(engine), temp, options, labels).await
}

fn host_of(engine: &Engine) -> Arc<OciHost> {
    host_with(engine, Access::default())
}

fn host_with(engine: &Engine, access: Access) -> Arc<OciHost> {
    let agent = executr_tests::program::contained_agent();
    let host = OciHostOptions {
        address: Some(engine.address()),
        agent: AgentProgram::new(move || Ok(agent.clone())),
        access,
        ..OciHostOptions::default()
    };
    Arc::new(OciHost::new(host))
}

async fn open_on(
    host: &Arc<OciHost>,
    temp: &Path,
    options: Value,
    labels: BTreeMap<String, String>,
) -> Result<Both, ExecutorError> {
    open_with(host, temp, options, labels, None).await
}

/// With who one is at the image's registry.
async fn open_with(
    host: &Arc<OciHost>,
    temp: &Path,
    options: Value,
    labels: BTreeMap<String, String>,
    login: Option<[&str; 2]>,
) -> Result<Both, ExecutorError> {
    let keeper =
        KeeperOptions { program: executr_tests::program::agent(), args: vec![], cgroups: Cgroups::WhereWritable };
    let machine = LocalExecutor { work_dir: temp.join("work"), keeper }.setup_workspace().await.unwrap();
    let mut options: OciOptions = serde_json::from_value(options).unwrap();
    options.login =
        login.map(|[username, password]| RegistryLogin { username: username.into(), password: password.into() });
    let host = Arc::clone(host);
    match OciWorkspace::open(host, Arc::clone(&machine), plan().job, options, labels).await {
        Ok(containers) => Ok(Both { containers, machine }),
        Err(error) => {
            machine.cleanup().await;
            Err(error)
        }
    }
}

async fn rig_of(engine: &Engine, options: Value) -> Rig {
    rig_in(engine, options, tempfile::tempdir().unwrap()).await
}

async fn rig_in(engine: &Engine, options: Value, directory: TempDir) -> Rig {
    let both = open(engine, directory.path(), options, &tag()).await.unwrap();
    Rig { workspace: Arc::new(both), directory }
}

/// A rig whose own directory is in the container, too.
async fn conforming(engine: Option<Engine>, mode: &str) -> Option<Rig> {
    let temp = tempfile::tempdir().unwrap();
    let mount = format!("{0}:{0}", temp.path().display());
    let options = json!({"image": IMAGE, "network": "none", "mode": mode, "mounts": [mount]});
    Some(rig_in(&engine?, options, temp).await)
}

/// A rig, or the end of the test where there is no engine.
macro_rules! rig {
    ($options:tt) => {
        match engine() {
            Some(engine) => rig_of(&engine, json!($options)).await,
            None => return,
        }
    };
}

mod shared {
    async fn rig() -> Option<super::Rig> {
        super::conforming(super::engine(), "shared").await
    }
    crate::conformance!(rig);
}

mod isolated {
    async fn rig() -> Option<super::Rig> {
        super::conforming(super::engine(), "isolated").await
    }
    crate::conformance!(rig);
}

mod podman_shared {
    async fn rig() -> Option<super::Rig> {
        super::conforming(super::podman(), "shared").await
    }
    crate::conformance!(rig);
}

mod podman_isolated {
    async fn rig() -> Option<super::Rig> {
        super::conforming(super::podman(), "isolated").await
    }
    crate::conformance!(rig);
}

fn variables(sandbox: &dyn Sandbox) -> Vec<String> {
    let variables = sandbox.variables().unwrap();
    variables.iter().map(|variable| String::from_utf8_lossy(variable).into_owned()).collect()
}

async fn said(sandbox: &mut dyn Sandbox, script: &str) -> String {
    let mut step = sh(script);
    step.last = false;
    let mut execution = sandbox.execute(step).await.unwrap();
    let outcome = gather(execution.as_mut()).await;
    assert_eq!(outcome.exit, Some(Exit::Code(0)), "{outcome:?}");
    String::from_utf8(outcome.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_share_a_container_or_have_their_own() {
    for (mode, is_shared) in [("shared", true), ("isolated", false)] {
        let rig = rig!({"image": IMAGE, "network": "none", "mode": mode});
        let mut jobs = Vec::new();
        for _ in 0..2 {
            jobs.push(rig.workspace.setup_job(plan()).await.unwrap());
        }
        said(jobs[0].as_mut(), "echo here > /tmp/left; echo here > file").await;
        let found = said(jobs[1].as_mut(), "ls /tmp/left 2>/dev/null || :; ls file 2>/dev/null || :").await;
        assert_eq!(found, if is_shared { "/tmp/left\n" } else { "" }, "{mode}");
        for mut job in jobs {
            job.cleanup().await.unwrap();
        }
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_run_as_who_they_should_and_can_do_nothing_more() {
    let look = "id -u; id -g; grep -E 'CapPrm|CapEff|NoNewPrivs' /proc/self/status | tr '\\n\\t' '  '";
    let nothing = "CapPrm: 0000000000000000 CapEff: 0000000000000000 NoNewPrivs: 1 ";
    for (options, who) in [
        (json!({"image": IMAGE}), "0\n0\n"),
        (json!({"image": IMAGE, "user": "ann"}), "1000\n1000\n"),
        (json!({"image": IMAGE, "user": "1234:5"}), "1234\n5\n"),
        (json!({"image": IMAGE_OF_ANN}), "1000\n1000\n"),
    ] {
        for engine in [engine(), podman()].into_iter().flatten() {
            let mut options = options.clone();
            options["network"] = json!("none");
            let rig = rig_of(&engine, options).await;
            assert_eq!(run(&rig, plan(), look).await, Outcome::exited(0, &format!("{who}{nothing}")), "{engine:?}");
            rig.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_not_root_owns_the_job_directory_and_hands_over() {
    let rig = rig!({"image": IMAGE, "network": "none", "user": "ann"});
    let mut job = rig.workspace.setup_job(plan()).await.unwrap();
    job.make_directory().await.unwrap();
    let directory = job.directory().to_owned();
    std::fs::create_dir_all(directory.join("src/deep")).unwrap();
    std::fs::write(directory.join("src/deep/file"), "from outside\n").unwrap();
    let handover = job.handover_path(Handover::Outputs);
    let script =
        format!("cat src/deep/file; echo more >> src/deep/file; mkdir made; echo x=1 > {}", handover.display());
    assert_eq!(said(job.as_mut(), &script).await, "from outside\n");
    assert_eq!(job.take_handover(Handover::Outputs, 100).await.unwrap(), Some(Bytes::from_static(b"x=1\n")));
    assert!(directory.join("made").is_dir());
    job.cleanup().await.unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_and_the_settings_have_variables() {
    let rig = rig!({"image": IMAGE, "network": "none", "container_env": {"FROM_SETTINGS": "a b"}});
    let mut job = rig.workspace.setup_job(plan()).await.unwrap();
    let variables = variables(job.as_ref());
    for variable in ["FROM_IMAGE=image", "PATH=/bin:/usr/bin", "FROM_SETTINGS=a b"] {
        assert!(variables.iter().any(|found| found == variable), "{variables:?}");
    }
    job.cleanup().await.unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_bounded_as_its_settings_say() {
    let rig = rig!({"image": IMAGE, "network": "none", "read_only": true, "tmpfs": ["/tmp:size=1m"],
                    "memory": "64Mi", "pids": 50, "cpus": "1"});
    let script = "touch /file 2>/dev/null && echo written; touch /tmp/file file && echo there
                  dd if=/dev/zero of=/tmp/large bs=1k count=2048 2>/dev/null || echo full
                  ls /sys/class/net";
    assert_eq!(run(&rig, plan(), script).await, Outcome::exited(0, "there\nfull\nlo\n"));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_job_has_bounds_of_its_own() {
    let rig = rig!({"image": IMAGE, "network": "none", "mode": "isolated"});
    let mut job = plan();
    job.limits.pids = 20;
    let script = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; wait";
    assert_ne!(run(&rig, job, script).await.exit, Some(Exit::Code(0)));
    rig.end().await;
    let rig = rig!({"image": IMAGE, "network": "none"});
    let mut job = plan();
    job.limits.pids = 20;
    let error = rig.workspace.setup_job(job).await.err().unwrap().to_string();
    assert!(error.contains("pids") && error.contains("isolated"), "{error}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_may_hold_nothing() {
    let rig = rig!({"image": EMPTY_IMAGE, "network": "none"});
    let failed = run_step(&rig, plan(), sh("true")).await.failed.unwrap();
    assert!(failed.failure.message.contains("/bin/sh"), "{}", failed.failure.message);
    let mut step = sh("");
    // A static program that is in every container: without a socket to serve it ends with an error of its own.
    step.program = executr_executors::contract::Program::Argv(vec!["/.executr/agent".into(), "x".into()]);
    let outcome = run_step(&rig, plan(), step).await;
    assert_eq!(outcome.exit, Some(Exit::Code(1)), "{outcome:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_is_named() {
    let Some(engine) = engine() else { return };
    let temp = tempfile::tempdir().unwrap();
    let open = |options: Value| open(&engine, temp.path(), options, "none");
    let error = open(json!({"image": "no-such-image", "pull": "never"})).await.err().unwrap().to_string();
    assert!(error.contains("no-such-image") && error.contains("pull"), "{error}");
    let error = open(json!({"image": IMAGE, "engine": "unix:///no/such.sock"})).await.err().unwrap().to_string();
    assert!(error.contains("/no/such.sock") && error.contains("DOCKER_HOST"), "{error}");
    let error = open(json!({"image": IMAGE, "mounts": ["relative:/x"]})).await.err().unwrap();
    assert!(matches!(error, ExecutorError::Container(ContainerError::Settings(_))), "{error}");
    let error = open(json!({"image": IMAGE, "mounts": ["/no/such/directory:/x"]})).await.err().unwrap().to_string();
    assert!(error.contains("/no/such/directory"), "{error}");
    let left: Vec<_> = std::fs::read_dir(temp.path().join("work")).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_removed_by_others_fails_the_step() {
    let Some(engine) = engine() else { return };
    let temp = tempfile::tempdir().unwrap();
    let tag = tag();
    let both = open(&engine, temp.path(), json!({"image": IMAGE, "network": "none"}), &tag).await.unwrap();
    let label = format!("executr.test={tag}");
    assert_eq!(engine.count(&label), 1);
    let mut job = both.setup_job(plan()).await.unwrap();
    let mut execution = job.execute(sh("sleep 1000")).await.unwrap();
    execution.next().await.unwrap();
    engine.remove(&label);
    let error = loop {
        match execution.next().await {
            Ok(event) => assert!(event.is_some(), "an end that nobody has seen"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("container"), "{error}");
    drop(execution);
    drop(job);
    both.cleanup().await;
    assert_eq!(engine.count(&label), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_what_was_cleaned_up_or_dropped() {
    let Some(engine) = engine() else { return };
    let temp = tempfile::tempdir().unwrap();
    for mode in ["shared", "isolated"] {
        let tag = tag();
        let label = format!("executr.test={tag}");
        let options = json!({"image": IMAGE, "network": "none", "mode": mode});
        let both = open(&engine, temp.path(), options, &tag).await.unwrap();
        let job = both.setup_job(plan()).await.unwrap();
        assert_eq!(engine.count(&label), 1, "{mode}");
        drop(job);
        drop(both);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while engine.count(&label) > 0 {
            assert!(std::time::Instant::now() < deadline, "{mode}: a dropped container stays");
            tokio::task::yield_now().await;
        }
    }
}
