//! What a job in a container without a daemon tries, and fails to do.

use executr_executors::contract::Exit;
use serde_json::json;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::conformance::rig::{Outcome, Rig, gather, plan, run, run_step, sh};
use crate::rig::rig_of;

/// What a script says as a job of its own; it has to end well.
async fn said(rig: &Rig, script: &str) -> String {
    let outcome = run(rig, plan(), script).await;
    assert_eq!(outcome.exit, Some(Exit::Code(0)), "{script}: {outcome:?}");
    String::from_utf8(outcome.stdout).unwrap()
}

/// A rig of jobs that have a container each.
async fn isolated() -> Option<Rig> {
    rig_of(json!({"mode": "isolated"})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_other_jobs_nor_the_machines_files_are_there() {
    let Some(rig) = isolated().await else { return };
    let secret = rig.directory.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    let mut other = rig.workspace.setup_job(plan()).await.unwrap();
    let mut step = sh("echo mine > file; pwd");
    step.last = false;
    let mut execution = other.execute(step).await.unwrap();
    let pwd = String::from_utf8(gather(execution.as_mut()).await.stdout).unwrap();
    drop(execution);
    assert!(std::path::Path::new(pwd.trim()).join("file").exists(), "{pwd}");
    let home = crate::rig::home();
    for path in [secret.to_str().unwrap(), pwd.trim(), home.as_str(), "/etc/shadow", "/home", "/boot", "/var"] {
        let outcome = run(&rig, plan(), &format!("ls -d {path}")).await;
        assert_eq!(outcome.exit, Some(Exit::Code(1)), "{path} can be seen: {outcome:?}");
    }
    let jobs = said(&rig, "ls \"$(dirname \"$PWD\")\" | grep -v run- | wc -l").await;
    assert_eq!(jobs, "1\n", "it sees its own directory alone");
    other.cleanup().await.unwrap();
    drop(other);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_processes_can_be_neither_seen_nor_signalled() {
    let Some(rig) = isolated().await else { return };
    let worker = std::process::id();
    // The first process, its keeper, the shell and what it runs.
    let count: u32 = said(&rig, "ls -d /proc/[0-9]* | wc -l").await.trim().parse().unwrap();
    assert!((3..=6).contains(&count), "{count} processes");
    let high = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    for script in [
        format!("kill -0 {worker}"),
        format!("cat /proc/{worker}/mem"),
        format!("kill -9 {}", high.trim()),
        // The agent is there, and has what steps don't.
        "cat /proc/1/mem".to_owned(),
        "cat /proc/1/environ".to_owned(),
        "readlink /proc/1/fd/3".to_owned(),
        "cat /proc/1/root/etc/passwd".to_owned(),
    ] {
        let outcome = run(&rig, plan(), &script).await;
        assert!(matches!(outcome.exit, Some(Exit::Code(1 | 2))), "{script}: {outcome:?}");
        assert_eq!(outcome.stdout, b"", "{script}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_network_nobody_is_reached() {
    let Some(rig) = isolated().await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = format!("executr-test-{port}");
    let hidden = SocketAddr::from_abstract_name(&name).unwrap();
    let unix = UnixListener::bind_addr(&hidden).unwrap();
    std::os::unix::net::UnixStream::connect_addr(&hidden).unwrap();
    for script in [
        format!("nc -w 1 127.0.0.1 {port} < /dev/null"),
        "nc -w 1 192.0.2.1 80 < /dev/null".to_owned(),
        format!("grep {name} /proc/net/unix"),
    ] {
        let outcome = run(&rig, plan(), &script).await;
        assert_ne!(outcome.exit, Some(Exit::Code(0)), "{script}: {outcome:?}");
    }
    assert_eq!(said(&rig, "ls /sys/class/net").await, "lo\n");
    assert_eq!(
        said(&rig, "ip addr show lo | grep -c -e LOOPBACK,UP -e 127.0.0.1").await,
        "2\n",
        "its own loopback works"
    );
    drop((listener, unix));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machines_network_is_there_when_it_is_asked_for() {
    let Some(rig) = rig_of(json!({"network": "host"})).await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello\n").unwrap());
    assert_eq!(said(&rig, &format!("nc 127.0.0.1 {port} < /dev/null")).await, "hello\n");
    answering.join().unwrap();
    rig.end().await;
}

/// System calls by a program of the test's own, in a container that has it: each has to be refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dangerous_calls_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("calls.c");
    std::fs::write(&source, include_str!("calls.c")).unwrap();
    let program = temp.path().join("calls");
    let compiled =
        std::process::Command::new("cc").args(["-static", "-o"]).arg(&program).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mount = format!("{0}:{0}:ro", temp.path().display());
    for (user, mode) in [("root", "isolated"), ("ann", "isolated"), ("root", "shared")] {
        let Some(rig) = rig_of(json!({"mode": mode, "user": user, "mounts": [mount]})).await else { return };
        let outcome = run_step(&rig, plan(), sh(program.to_str().unwrap())).await;
        let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
        assert!(said.lines().count() > 20, "{outcome:?}");
        for line in said.lines() {
            assert!(line.ends_with(" EPERM") || line == "clone3 ENOSYS", "{user}, {mode}: {line}");
        }
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_shows_and_takes_little() {
    let Some(rig) = isolated().await else { return };
    for script in [
        "mount -t tmpfs none /tmp",
        "umount /proc",
        "unshare -U true",
        "echo 1 > /proc/sys/kernel/core_uses_pid",
        "echo b > /proc/sysrq-trigger",
        "dmesg",
        "mknod /tmp/kmsg c 1 11",
        "chroot / true",
        "hostname other",
        "ip link add x type dummy",
        "cat /dev/mem",
        "cat /dev/sda",
    ] {
        let outcome = run(&rig, plan(), script).await;
        assert!(matches!(outcome.exit, Some(Exit::Code(code)) if code != 0), "{script}: {outcome:?}");
    }
    assert_eq!(said(&rig, "cat /proc/kcore /proc/keys /proc/timer_list | wc -c").await, "0\n");
    let devices = "full\nnull\nptmx\npts\nrandom\nshm\ntty\nurandom\nzero\n";
    let listed = said(&rig, "ls /dev | grep -v -e core -e fd -e std -e mqueue -e console").await;
    assert_eq!(listed, devices);
    let status =
        said(&rig, "grep -E 'CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp:' /proc/self/status | tr '\\n\\t' '  '")
            .await;
    let nothing = "CapPrm: 0000000000000000 CapEff: 0000000000000000 ";
    assert!(status.starts_with(nothing) && status.contains("NoNewPrivs: 1 Seccomp: 2 "), "{status}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_run_as_who_they_should() {
    for (settings, who) in [
        (json!({}), "0\n0\n"),
        (json!({"user": "ann"}), "1000\n1000\n"),
        (json!({"user": "1234:5"}), "1234\n5\n"),
        (json!({"image": "ann"}), "1000\n1000\n"),
    ] {
        let Some(rig) = rig_of(settings.clone()).await else { return };
        assert_eq!(run(&rig, plan(), "id -u; id -g; echo x > file").await, Outcome::exited(0, who), "{settings}");
        rig.end().await;
    }
}
