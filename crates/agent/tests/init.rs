//! The agent as the first process of a place, here of none: drivers call it on its socket.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use executr_agent_protocol::driver::{Event, Exit, Keeper, KeeperError, KeeperSource, StartPhase, StartTask};
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(30);

struct Rig {
    directory: tempfile::TempDir,
    agent: Child,
}

impl Rig {
    /// An agent that stays a second without a driver.
    fn new() -> Self {
        Self::started_by(Command::new(env!("CARGO_BIN_EXE_executr-agent")))
    }

    /// The same as the first process of a container, as far as numbers of processes go.
    fn contained() -> Self {
        let mut agent = Command::new("unshare");
        // Also for users who may make namespaces only with one of users around them.
        agent.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
        agent.arg(env!("CARGO_BIN_EXE_executr-agent"));
        Self::started_by(agent)
    }

    fn started_by(mut agent: Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        agent.arg("serve").arg(directory.path().join("socket")).arg("1").stdin(Stdio::null());
        let rig = Self { agent: agent.spawn().unwrap(), directory };
        until("it listens", || rig.socket().exists());
        rig
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    async fn keeper(&self) -> Keeper {
        Keeper::of(KeeperSource::Socket(self.socket())).await.unwrap()
    }

    fn sh(&self, script: &str) -> StartTask {
        let word = |word: &str| Bytes::copy_from_slice(word.as_bytes());
        StartTask {
            argv: ["/bin/sh", "-c", script].map(word).into(),
            env: vec![word("PATH=/usr/bin:/bin")],
            directory: word(self.directory.path().to_str().unwrap()),
            ..StartTask::default()
        }
    }

    /// Waits until it has ended by itself.
    fn ended(mut self) {
        until("the agent ends when nobody calls", || self.agent.try_wait().unwrap().is_some());
        assert!(self.agent.wait().unwrap().success());
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn written(path: &Path) -> String {
    until("a file is written", || std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n')));
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

async fn exit(keeper: &mut Keeper, task: StartTask) -> Exit {
    let mut task = keeper.start(task).await.unwrap();
    loop {
        if let Event::Ended(ended) = task.next().await.unwrap().unwrap() {
            return ended.exit;
        }
    }
}

#[tokio::test]
async fn each_driver_has_a_keeper_of_its_own() {
    let rig = Rig::new();
    let (mut first, mut second) = (rig.keeper().await, rig.keeper().await);
    assert_ne!(first.pid(), second.pid());
    let pids = rig.directory.path().join("waits");
    let waiting = rig.sh(&format!("echo $$ > {}; sleep 1000", pids.display()));
    let task = first.start(waiting).await.unwrap();
    written(&pids);
    assert_eq!(exit(&mut second, rig.sh("exit 4")).await, Exit::Code(4), "while the other one runs something");
    drop(task);
    assert_eq!(exit(&mut first, rig.sh("exit 5")).await, Exit::Code(5));
    drop((first, second));
    rig.ended();
}

#[tokio::test]
async fn what_runs_in_the_container_gets_no_keeper() {
    let rig = Rig::contained();
    let mut keeper = rig.keeper().await;
    // It is connected, and then hears nothing but the end.
    let perl = "use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0) or exit 2; \
                connect($s, sockaddr_un($ENV{SOCKET})) or exit 3; \
                my $read = sysread($s, my $byte, 1); exit(defined($read) ? ($read ? 4 : 0) : 5);";
    let mut task = rig.sh(&format!("exec perl -e '{perl}'"));
    task.env.push(Bytes::from(format!("SOCKET={}", rig.socket().display())));
    assert_eq!(exit(&mut keeper, task).await, Exit::Code(0));
    drop(keeper);
    rig.ended();
}

#[tokio::test]
async fn what_a_dead_keeper_left_is_ended() {
    let rig = Rig::new();
    let mut keeper = rig.keeper().await;
    let pid = keeper.pid();
    let file = rig.directory.path().join("pid");
    let script = format!("(setsid sh -c 'echo $$ > {}; exec sleep 1000' &) ; sleep 1000", file.display());
    let mut task = keeper.start(rig.sh(&script)).await.unwrap();
    let left = written(&file);
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let error = loop {
        match task.next().await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, KeeperError::Lost), "{error}");
    until("nothing is left", || !Path::new("/proc").join(&left).exists());
    drop(task);
    // Another one can be had from the same agent, until nobody wants one.
    keeper.respawn().await.unwrap();
    assert_eq!(exit(&mut keeper, rig.sh("exit 0")).await, Exit::Code(0));
    drop(keeper);
    rig.ended();
}

#[tokio::test]
async fn a_signal_reaches_what_runs_and_ends_the_agent() {
    let rig = Rig::new();
    let mut keeper = rig.keeper().await;
    let file = rig.directory.path().join("ready");
    let script = format!("trap 'exit 9' TERM; echo > {}; while :; do sleep 0.01; done", file.display());
    let mut task = keeper.start(rig.sh(&script)).await.unwrap();
    written(&file);
    kill_process(Pid::from_raw(rig.agent.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let exit = loop {
        if let Event::Ended(ended) = task.next().await.unwrap().unwrap() {
            break ended.exit;
        }
    };
    assert_eq!(exit, Exit::Code(9));
    drop(task);
    drop(keeper);
    rig.ended();
}

#[tokio::test]
async fn nobody_runs_as_a_user_who_is_not_there() {
    let rig = Rig::new();
    let mut keeper = rig.keeper().await;
    let mut task = keeper.start(StartTask { user: "no-such-user".into(), ..rig.sh("true") }).await.unwrap();
    let Some(Event::StartFailed(failed)) = task.next().await.unwrap() else { panic!("it can't have started") };
    assert_eq!(failed.phase, StartPhase::User);
    assert!(failed.failure.message.contains("no-such-user"), "{}", failed.failure.message);
    drop(task);
    drop(keeper);
    rig.ended();
}
