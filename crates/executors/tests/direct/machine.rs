//! Jobs in this machine's own files: what `local` with `isolate` does.

use std::path::Path;
use std::sync::Arc;

use executr_executors::contract::{Exit, JobPlan, Place};
use serde_json::json;

use crate::conformance::rig::{Outcome, Rig, plan, run};
use crate::rig::{home, open};

async fn rig() -> Option<Rig> {
    let directory = tempfile::tempdir().unwrap();
    let both = open(directory.path(), json!("machine")).await?.unwrap();
    Some(Rig { workspace: Arc::new(both), directory })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_programs_are_there_and_nothing_of_it_can_be_written() {
    let Some(rig) = rig().await else { return };
    let words = "cat /etc/passwd > copy && cmp copy /etc/passwd && echo same";
    assert_eq!(run(&rig, plan(), words).await, Outcome::exited(0, "same\n"));
    for path in ["/file", "/etc/file", "/usr/file", "/var/lib/file", "/usr/bin/env", "/boot/file", "/sys/file"] {
        let outcome = run(&rig, plan(), &format!("echo x > {path}")).await;
        assert!(matches!(outcome.exit, Some(Exit::Code(1 | 2))), "{path}: {outcome:?}");
    }
    // What goes with the job may be.
    let script = "echo x > /tmp/executr-test-file; echo x > /var/tmp/executr-test-file; cat /tmp/executr-test-file";
    assert_eq!(run(&rig, plan(), script).await, Outcome::exited(0, "x\n"));
    assert!(!Path::new("/tmp/executr-test-file").exists() && !Path::new("/var/tmp/executr-test-file").exists());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn homes_other_jobs_and_processes_are_not_seen() {
    let Some(rig) = rig().await else { return };
    std::fs::write(rig.directory.path().join("secret"), "x").unwrap();
    let other = rig.directory.path().join("work/somebody-elses");
    std::fs::create_dir(&other).unwrap();
    let secret = rig.directory.path().join("secret");
    for path in [secret.as_path(), &other] {
        let outcome = run(&rig, plan(), &format!("ls -d {}", path.display())).await;
        assert!(matches!(outcome.exit, Some(Exit::Code(1 | 2))), "{outcome:?}");
    }
    std::fs::remove_dir(&other).unwrap();
    let worker = std::process::id();
    for script in [
        format!("ls -A {} | grep -v '^tmp$' | grep .", home()),
        "ls -A /home | grep -v -e work -e tmp | grep .".to_owned(),
        "ls /run | grep -v executr | grep .".to_owned(),
        format!("cat /proc/{worker}/mem"),
        format!("kill -0 {worker}"),
        "cat /etc/shadow | grep root".to_owned(),
        "ls /sys/class/net | grep -v lo".to_owned(),
        "ls /dev | grep -e sda -e vda -e mem".to_owned(),
        "mount -t tmpfs none /mnt".to_owned(),
        "unshare -U true".to_owned(),
    ] {
        let outcome = run(&rig, plan(), &script).await;
        assert!(matches!(outcome.exit, Some(Exit::Code(code)) if code != 0), "{script}: {outcome:?}");
        assert_eq!(outcome.stdout, b"", "{script}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_the_machines_is_the_jobs_when_it_is_given() {
    let Some(rig) = rig().await else { return };
    let given = rig.directory.path().join("given");
    std::fs::create_dir(&given).unwrap();
    let job = JobPlan { place: Place::Directory(given.clone()), ..plan() };
    assert_eq!(run(&rig, job, "echo made > file").await.exit, Some(Exit::Code(0)));
    assert_eq!(std::fs::read_to_string(given.join("file")).unwrap(), "made\n");
    rig.end().await;
}

mod conforming {
    async fn rig() -> Option<crate::conformance::rig::Rig> {
        super::rig_with_its_directory().await
    }
    crate::conformance!(rig);
}

/// A rig whose own directory can be seen and written: the suite leaves signs there.
async fn rig_with_its_directory() -> Option<Rig> {
    let directory = tempfile::tempdir().unwrap();
    let mount = format!("{0}:{0}", directory.path().display());
    let both = open(directory.path(), json!(["machine", mount])).await?.unwrap();
    Some(Rig { workspace: Arc::new(both), directory })
}
