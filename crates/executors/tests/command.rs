//! The conformance suite against `command`: an agent started as it is, one at the end of two pipes, and one in a sandbox
//! of bubblewrap; and what only `command` does.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod conformance;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conformance::rig::{Outcome, Rig, gather, left_in, plan, run, sh};
use executr_executors::command::{CommandHost, CommandOptions, CommandWorkspace, Given};
use executr_executors::contract::{
    Executor, ExecutorError, Exit, Handover, JobPlan, LimitOffers, Limits, Sandbox, Workspace,
};
use executr_executors::local::{Cgroups, KeeperOptions, LocalExecutor};
use executr_executors::oci::AgentProgram;

/// Places behind an argv, and the machine whose directories they have.
struct Both {
    commands: CommandWorkspace,
    machine: Arc<dyn Workspace>,
}

#[async_trait::async_trait]
impl Workspace for Both {
    fn limits(&self) -> &LimitOffers {
        self.commands.limits()
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        self.commands.setup_job(job).await
    }

    async fn cleanup(&self) {
        self.commands.cleanup().await;
        self.machine.cleanup().await;
    }
}

async fn rig_of(argv: &[&str]) -> Rig {
    rig_in(tempfile::tempdir().unwrap(), argv).await
}

async fn rig_in(directory: tempfile::TempDir, argv: &[&str]) -> Rig {
    rig_with(directory, argv, None).await
}

async fn rig_with(directory: tempfile::TempDir, argv: &[&str], of_agent: Option<std::path::PathBuf>) -> Rig {
    let agent = executr_tests::program::agent();
    let keeper = KeeperOptions { program: agent.clone(), args: vec![], cgroups: Cgroups::WhereWritable };
    let work_dir = directory.path().join("work");
    let machine = LocalExecutor { work_dir, keeper }.setup_workspace().await.unwrap();
    let host = CommandHost { agent: AgentProgram::new(move || Ok(agent.clone())), programs: "/programs".into() };
    let options = CommandOptions { argv: argv.iter().map(|word| (*word).to_owned()).collect(), directory: of_agent };
    let env = vec![Bytes::from_static(b"PATH=/usr/local/bin:/usr/bin:/bin")];
    let commands = CommandWorkspace::new(host, Arc::clone(&machine), options, Given::default(), env);
    Rig { workspace: Arc::new(Both { commands, machine }), directory }
}

mod as_it_is {
    async fn rig() -> super::Rig {
        super::rig_of(&["{agent}"]).await
    }
    crate::conformance!(rig);
}

mod behind_pipes {
    async fn rig() -> super::Rig {
        super::rig_of(&["sh", "-c", "cat | {agent} | cat"]).await
    }
    crate::conformance!(rig);
}

mod in_bubblewrap {
    async fn rig() -> Option<super::Rig> {
        super::bubblewrapped(&[]).await
    }
    crate::conformance!(rig);
}

mod with_nothing_shared {
    /// Jobs are in a file system that is mounted for the agent alone.
    async fn rig() -> Option<super::Rig> {
        if !rustix::process::geteuid().is_root() {
            executr_tests::component::absent("root user", "mounting takes one");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let far = directory.path().join("far");
        std::fs::create_dir(&far).unwrap();
        let script = format!("mount -t tmpfs none {} && exec \"$0\" serve --stdio", far.display());
        let argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "{agent}"];
        Some(super::rig_with(directory, &argv, Some(far.join("jobs"))).await)
    }
    crate::conformance!(rig);
}

/// A sandbox that shows this machine, of which jobs can change their directories and the rig's.
async fn bubblewrapped(more: &[&str]) -> Option<Rig> {
    if !executr_tests::program::bubblewrap() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().to_str().unwrap().to_owned();
    let argv = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", &own, &own];
    let directories = ["--bind", "{job_directory}", "{job_directory}", "--unshare-pid", "--die-with-parent"];
    Some(rig_in(directory, &[&argv[..], &directories, more, &["{agent}"]].concat()).await)
}

/// Why there is no place for a job.
async fn refused(rig: Rig) -> String {
    let error = rig.workspace.setup_job(plan()).await.err().unwrap().to_string();
    assert_eq!(rig.processes(), [0_i32; 0], "something is left");
    rig.end().await;
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_there_is_no_agent_is_told() {
    let silent = "echo first >&2; echo second >&2; exit 7";
    let told = refused(rig_of(&["sh", "-c", silent]).await).await;
    assert!(told.contains("`sh` ended with exit code 7 (first; second)"), "{told}");
    let told = refused(rig_of(&["/no/such/program", "{agent}"]).await).await;
    assert!(told.contains("`/no/such/program` can't be started"), "{told}");
    let told =
        refused(rig_of(&["sh", "-c", "echo what an agent never says; echo why >&2; exec sleep 1000"]).await).await;
    assert!(told.contains("isn't what an agent says"), "{told}");
    let told = refused(rig_of(&[]).await).await;
    assert!(told.contains("`argv` is empty"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_the_agent_does_not_see_is_told() {
    if !executr_tests::program::bubblewrap() {
        return;
    }
    let sandbox = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"];
    for directories in [&[][..], &["--tmpfs", "{job_directory}"]] {
        let told = refused(rig_of(&[&sandbox[..], directories, &["{agent}"]].concat()).await).await;
        assert!(told.contains("at the same path") && told.contains("--bind {job_directory}"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_lost_is_explained_and_the_next_job_has_another() {
    let rig = rig_of(&["sh", "-c", "{agent}; echo gone with $? >&2; exit 3"]).await;
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let mut execution = sandbox.execute(sh("setsid sleep 1000 & kill -9 $PPID; wait")).await.unwrap();
    let error = loop {
        match execution.next().await {
            Ok(event) => assert!(event.is_some(), "an end that nobody has seen"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("`sh`") && error.contains("exit code 3") && error.contains("gone with 137"), "{error}");
    drop(execution);
    sandbox.cleanup().await.unwrap();
    assert!(!sandbox.directory().exists());
    drop(sandbox);
    assert_eq!(run(&rig, plan(), "echo well").await, Outcome::exited(0, "well\n"));
    assert_eq!(rig.processes(), [0_i32; 0], "something is left");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_argv_that_stays_when_its_agent_is_gone_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark").display().to_string();
    let script = format!("{{agent}}; echo ended > {mark}.ended; sleep 1000; echo never > {mark}.never");
    let rig = rig_in(directory, &["sh", "-c", &script]).await;
    assert_eq!(run(&rig, plan(), "echo well").await, Outcome::exited(0, "well\n"));
    assert!(Path::new(&format!("{mark}.ended")).exists() && !Path::new(&format!("{mark}.never")).exists());
    assert_eq!(rig.processes(), [0_i32; 0], "something is left");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_dropped_in_the_middle_leaves_nothing() {
    let rig = rig_of(&["sh", "-c", "{agent}; sleep 1000"]).await;
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let directory = sandbox.directory().to_owned();
    let mut execution = sandbox.execute(sh(&format!("echo {}; sleep 1000", directory.display()))).await.unwrap();
    execution.next().await.unwrap();
    drop(execution);
    drop(sandbox);
    let scratch = directory.parent().and_then(Path::parent).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while scratch.exists() {
        assert!(Instant::now() < deadline, "it is never cleaned up");
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.processes(), [0_i32; 0], "something is left");
    rig.workspace.cleanup().await;
    drop(rig.workspace);
    // What ended it in the background holds the work directory until it is through.
    while !left_in(rig.directory.path()).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", left_in(rig.directory.path()));
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_shows_what_its_argv_gives_it() {
    let Some(rig) = bubblewrapped(&["--unshare-net", "--tmpfs", "/srv", "--setenv", "LEAKED", "yes"]).await else {
        return;
    };
    let script =
        "touch /srv/mine && ls /srv; touch /usr/mine 2>/dev/null || echo sealed; echo \"$LEAKED\"; echo $$ | wc -c";
    let outcome = run(&rig, plan(), script).await;
    let said = String::from_utf8(outcome.stdout).unwrap();
    assert!(said.starts_with("mine\nsealed\n\n"), "only what is declared is in a step's environment: {said}");
    assert!(!Path::new("/srv/mine").exists());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_steps_hand_over_is_taken_and_the_directory_kept() {
    let Some(rig) = bubblewrapped(&[]).await else { return };
    let mut sandbox = rig.workspace.setup_job(plan()).await.unwrap();
    let kept = rig.directory.path().join("kept");
    sandbox.keep_directory(&kept);
    sandbox.make_directory().await.unwrap();
    std::fs::write(sandbox.directory().join("given"), "given").unwrap();
    let output = sandbox.handover_path(Handover::Outputs);
    let mut execution =
        sandbox.execute(sh(&format!("cat given > {}; echo made > made", output.display()))).await.unwrap();
    assert_eq!(gather(execution.as_mut()).await.exit, Some(Exit::Code(0)));
    drop(execution);
    assert_eq!(sandbox.take_handover(Handover::Outputs, 100).await.unwrap().unwrap(), "given");
    sandbox.cleanup().await.unwrap();
    assert_eq!(std::fs::read_to_string(kept.join("made")).unwrap(), "made\n");
    drop(sandbox);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_for_all_that_an_argv_starts() {
    let rig = rig_of(&["{agent}"]).await;
    let job = JobPlan { limits: Limits { pids: 20, ..Limits::default() }, ..plan() };
    if let Err(reason) = rig.workspace.limits().pids.clone() {
        let error = rig.workspace.setup_job(job).await.err().unwrap().to_string();
        assert!(error.contains("pids") && error.contains(&reason), "{error}");
    } else {
        let script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all";
        let outcome = run(&rig, job, script).await;
        assert!(outcome.exit != Some(Exit::Code(0)) && outcome.stdout.is_empty(), "{outcome:?}");
    }
    rig.end().await;
}
