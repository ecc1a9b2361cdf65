//! Ways to an agent, and whom it lets in.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use executr_agent_protocol::driver::{Agent, AgentError, AgentOptions, Exit, OneStream, TcpDial, Token, UnixDial};
use tokio::net::UnixStream;

use crate::rig::{Rig, TOKEN, connect, lives, program, run, until, within};

#[tokio::test]
async fn it_says_what_it_is() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let facts = agent.facts();
    assert_eq!(facts.pid, rig.process.id());
    assert_eq!(facts.architecture, std::env::consts::ARCH);
    assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
    assert_eq!(facts.instance_id.len(), 32);
    assert_eq!(facts.digest, None, "nobody asked for it");
    assert!(facts.offers.memory.is_err(), "without --limits none are offered");
}

#[tokio::test]
async fn over_tcp_the_token_has_to_be_known() {
    let (rig, address) = Rig::tcp();
    assert!(address.ip().is_loopback(), "unless told otherwise");
    let dial = Arc::new(TcpDial(address));
    for token in [None, Some("fedcba9876543210"), Some(&TOKEN[..15])] {
        let options = AgentOptions { token: token.map(|token| Token(token.to_owned())), ..AgentOptions::default() };
        let error = within(Agent::connect(dial.clone(), options)).await.unwrap_err();
        assert!(matches!(&error, AgentError::Unauthenticated(_)), "{error}");
        assert!(error.to_string().contains("authorization: Bearer"), "{error}");
    }
    let options = AgentOptions { token: Some(Token(TOKEN.to_owned())), ..AgentOptions::default() };
    let agent = within(Agent::connect(dial, options)).await.unwrap();
    assert_eq!(run(&agent, rig.sh("exit 3")).await.ended.exit, Exit::Code(3));
    drop(agent);
    rig.ended().await;
}

#[tokio::test]
async fn its_program_has_to_be_the_one_demanded() {
    use std::io::Write;
    let rig = Rig::new().await;
    let dial = Arc::new(UnixDial(rig.socket()));
    let mut hasher =
        std::process::Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let own = std::fs::read(env!("CARGO_BIN_EXE_executr-agent")).unwrap();
    hasher.stdin.take().unwrap().write_all(&own).unwrap();
    let digest = String::from_utf8(hasher.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned();

    let options = AgentOptions { digest: Some(digest.clone()), ..AgentOptions::default() };
    let agent = within(Agent::connect(dial.clone(), options)).await.unwrap();
    assert_eq!(agent.facts().digest.as_ref(), Some(&digest));
    let options = AgentOptions { digest: Some("0".repeat(64)), ..AgentOptions::default() };
    let error = within(Agent::connect(dial, options)).await.unwrap_err();
    assert!(matches!(&error, AgentError::Digest { found, .. } if *found == digest), "{error}");
}

/// An agent at the end of standard input and output.
async fn stdio(stream: OwnedFd, other: OwnedFd) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_executr-agent"));
    command.args(["serve", "--stdio"]).stdin(stream).stdout(other).kill_on_drop(true);
    command.spawn().unwrap()
}

#[tokio::test]
async fn it_serves_the_socket_that_is_its_standard_input() {
    let rig = Rig::new().await;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let theirs = OwnedFd::from(theirs);
    let mut process = stdio(theirs.try_clone().unwrap(), theirs).await;
    let dial = OneStream::new(UnixStream::from_std(ours).unwrap());
    let agent = connect(Arc::new(dial), Duration::ZERO).await.unwrap();
    assert_eq!(run(&agent, rig.sh("printf over-a-socket")).await.stdout, b"over-a-socket");
    drop(agent);
    assert!(within(process.wait()).await.unwrap().success(), "its only caller is gone");
}

#[tokio::test]
async fn it_serves_pipes_and_ends_what_runs_when_they_close() {
    let rig = Rig::new().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_executr-agent"));
    command.args(["serve", "--stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().unwrap();
    let stream = tokio::io::join(process.stdout.take().unwrap(), process.stdin.take().unwrap());
    let agent = connect(Arc::new(OneStream::new(stream)), Duration::ZERO).await.unwrap();
    let seen = run(&agent, rig.sh("head -c 3000000 /dev/zero | tr '\\0' x")).await;
    assert_eq!(seen.stdout.len(), 3_000_000);

    let mut task = within(agent.start(rig.sh("echo $$; exec sleep 1000"))).await.unwrap();
    let said = crate::rig::until_said(&mut task, "\n").await;
    let pid = said.trim().parse().unwrap();
    assert!(lives(pid));
    std::mem::forget(task);
    drop(agent);
    // The task's stream is still open on this side; the pipes aren't.
    process.start_kill().unwrap();
    until("nothing is left", || !lives(pid)).await;
}

#[tokio::test]
async fn a_relay_leads_to_a_socket() {
    let rig = Rig::new().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_executr-agent"));
    command.arg("attach").arg(rig.socket()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut relay = command.spawn().unwrap();
    let stream = tokio::io::join(relay.stdout.take().unwrap(), relay.stdin.take().unwrap());
    let agent = connect(Arc::new(OneStream::new(stream)), Duration::ZERO).await.unwrap();
    assert_eq!(agent.facts().pid, rig.process.id());
    assert_eq!(run(&agent, rig.sh("exit 6")).await.ended.exit, Exit::Code(6));
    drop(agent);
    assert!(within(relay.wait()).await.unwrap().success());
    rig.ended().await;
}

#[tokio::test]
async fn what_runs_in_the_container_is_not_answered() {
    let mut command = std::process::Command::new("unshare");
    // Also for users who may make namespaces only with one of users around them.
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(env!("CARGO_BIN_EXE_executr-agent"));
    let rig = Rig::with(command, &["--patience", "1"]).await;
    let agent = rig.agent().await;
    assert_eq!(agent.facts().pid, 1);
    // It is connected, and then hears nothing but the end.
    let perl = "use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0) or exit 2; \
                connect($s, sockaddr_un($ENV{SOCKET})) or exit 3; \
                my $read = sysread($s, my $byte, 1); exit(defined($read) ? ($read ? 4 : 0) : 5);";
    let mut task = rig.sh(&format!("exec perl -e '{perl}'"));
    task.env.push(format!("SOCKET={}", rig.socket().display()).into());
    assert_eq!(run(&agent, task).await.ended.exit, Exit::Code(0));
    drop(agent);
    rig.ended().await;
}

#[tokio::test]
async fn arguments_that_mean_nothing_are_refused() {
    for (arguments, hint) in [
        (&["serve", "--tcp", "0"][..], "--token-file"),
        (&["serve", "--tcp", "localhost:0", "--token-file", "x"], "in numbers"),
        (&["serve", "--patience", "1"], "--socket"),
        (&["serve", "--stdio", "--loud"], "--loud"),
    ] {
        let output = program().args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(hint), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn where_nobody_listens_is_said() {
    let rig = Rig::new().await;
    let error = connect(Arc::new(UnixDial(rig.path("nobody"))), Duration::ZERO).await.unwrap_err();
    assert!(matches!(&error, AgentError::Dial(_)), "{error}");
}
