//! What containers are bound by.

use std::io::Write as _;

use executr_executors::contract::{Exit, JobPlan};
use executr_executors::local::Cgroups;
use serde_json::json;

use crate::conformance::rig::{Outcome, Rig, plan, run};
use crate::rig::{machine, rig_of};

/// Whether this user can bound processes on this machine; says so where not.
async fn can_bound() -> bool {
    let temp = tempfile::tempdir().unwrap();
    let machine = machine(temp.path()).await;
    let offers = machine.limits().clone();
    machine.cleanup().await;
    let refused = [offers.memory, offers.cpu, offers.pids].into_iter().find_map(Result::err);
    if let Some(reason) = &refused {
        let _ = writeln!(std::io::stderr(), "skipped: no bounds for this user here ({reason})");
    }
    refused.is_none()
}

/// A rig, and a job with bounds of its own.
async fn bounded(settings: serde_json::Value, limit: impl Fn(&mut JobPlan)) -> Option<(Rig, JobPlan)> {
    let mut job = plan();
    limit(&mut job);
    Some((rig_of(settings).await?, job))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_no_more_memory_than_it_may() {
    if !can_bound().await {
        return;
    }
    // Without swap, too.
    let eat = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    for (settings, own) in [(json!({"memory": "32Mi"}), 0), (json!({"mode": "isolated"}), 32 << 20)] {
        let Some((rig, job)) = bounded(settings, |job| job.limits.memory_bytes = own).await else { return };
        assert_eq!(run(&rig, job, eat).await.exit, Some(Exit::Signal(9)));
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_no_more_processes_than_it_may() {
    if !can_bound().await {
        return;
    }
    let many = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; echo all";
    for (settings, own) in [(json!({"pids": 20}), 0), (json!({"mode": "isolated"}), 20)] {
        let Some((rig, job)) = bounded(settings, |job| job.limits.pids = own).await else { return };
        let outcome = run(&rig, job, many).await;
        assert!(outcome.exit != Some(Exit::Code(0)) && outcome.stdout.is_empty(), "{outcome:?}");
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_no_more_of_a_processor_than_it_may() {
    if !can_bound().await {
        return;
    }
    let Some((rig, job)) = bounded(json!({"mode": "isolated"}), |job| job.limits.cpu_millis = 200).await else {
        return;
    };
    // It works until the kernel has counted half a second of a processor for it.
    let script = "while :; do
                      set -- $(cat /proc/$$/stat); [ $(( ${14} + ${15} )) -lt 50 ] || break
                      i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done
                  done; cut -d ' ' -f 1 /proc/uptime";
    let before: f64 = uptime();
    let outcome = run(&rig, job, script).await;
    let after: f64 = String::from_utf8(outcome.stdout).unwrap().trim().parse().unwrap();
    // At a fifth of a processor that takes two and a half; never less, however quick the machine.
    assert!(after - before > 1.5, "{}", after - before);
    rig.end().await;
}

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_stays_within_bounds() {
    let Some(rig) = rig_of(json!({"read_only": true, "tmpfs": ["/tmp:size=1m"]})).await else { return };
    let script = "touch /file 2>/dev/null && echo written; touch /tmp/file file && echo there
                  dd if=/dev/zero of=/tmp/large bs=1k count=2048 2>/dev/null || echo full";
    assert_eq!(run(&rig, plan(), script).await, Outcome::exited(0, "there\nfull\n"));
    rig.end().await;
    let Some(rig) = rig_of(json!({"mode": "isolated"})).await else { return };
    // The image is the same for whoever comes next.
    assert_eq!(run(&rig, plan(), "echo x > /file; rm /etc/group; ls /file").await, Outcome::exited(0, "/file\n"));
    assert_eq!(run(&rig, plan(), "ls /file 2>/dev/null || ls /etc/group").await, Outcome::exited(0, "/etc/group\n"));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_that_cannot_be_kept_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let settings = json!({"image": crate::rig::IMAGE, "network": "none", "engine": "direct", "memory": "1Gi"});
    let opened = crate::rig::open_with(temp.path(), settings, Cgroups::Never).await;
    let Some(opened) = opened else { return };
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("direct") && error.contains("control groups"), "{error}");
}
