//! Limits: enforced where offered, refused by name where not.

use executr_agent_protocol::driver::{Cgroups, Exit, Limits, PeakMemory, StartPhase};

use crate::rig::Rig;

fn offered(what: &str, offer: &Result<(), String>) -> bool {
    if let Err(reason) = offer {
        eprintln!("skipped: no {what} limit here: {reason}");
        #[expect(clippy::disallowed_methods, reason = "a test is no library")]
        let ci = std::env::var_os("CI").is_some();
        assert!(!ci, "CI must have a machine that offers it");
    }
    offer.is_ok()
}

#[tokio::test]
async fn a_memory_limit_ends_what_exceeds_it() {
    let mut rig = Rig::new().await;
    if !offered("memory", &rig.keeper.offers().memory.clone()) {
        return;
    }
    let mut task = rig.sh("head -c 200000000 /dev/zero | tail -c 200000000");
    task.limits = Some(Limits { memory_bytes: 32 << 20, ..Default::default() });
    let seen = rig.run(task).await;
    assert_eq!(seen.ended.exit, Exit::Code(128 + 9), "as the shell tells of its child");
    assert!(seen.ended.oom_killed);
    assert_eq!(seen.ended.usage.peak_memory_of, PeakMemory::Tree);
    assert!(seen.ended.usage.peak_memory <= 32 << 20, "{:?}", seen.ended.usage);

    let mut task = rig.sh("exec head -c 1000 /dev/zero");
    task.limits = Some(Limits { memory_bytes: 32 << 20, ..Default::default() });
    let seen = rig.run(task).await;
    assert_eq!(seen.ended.exit, Exit::Code(0));
    assert!(!seen.ended.oom_killed);
}

#[tokio::test]
async fn a_pids_limit_stops_forks_of_the_whole_tree() {
    let mut rig = Rig::new().await;
    if !offered("pids", &rig.keeper.offers().pids.clone()) {
        return;
    }
    let script = "for i in 1 2 3 4 5 6 7 8; do setsid sleep 1000 & done; wait";
    let mut task = rig.sh(script);
    task.limits = Some(Limits { pids: 4, ..Default::default() });
    let seen = rig.run(task).await;
    assert_ne!(seen.ended.exit, Exit::Code(0));
    assert!(String::from_utf8_lossy(&seen.stderr).to_lowercase().contains("fork"), "{:?}", seen.stderr);
}

#[tokio::test]
async fn a_cpu_limit_slows() {
    let mut rig = Rig::new().await;
    if !offered("cpu", &rig.keeper.offers().cpu.clone()) {
        return;
    }
    // The throttling counter of its own group says whether it was held back.
    let mut task = rig.sh("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; \
         group=$(sed -n 's/^[0-9]*:[^:]*\\bcpu\\b[^:]*://p; s/^0:://p' /proc/self/cgroup | grep executr | head -1); \
         cat /sys/fs/cgroup/cpu$group/cpu.stat /sys/fs/cgroup$group/cpu.stat 2>/dev/null");
    task.limits = Some(Limits { cpu_millis: 100, ..Default::default() });
    let seen = rig.run(task).await;
    let said = String::from_utf8(seen.stdout).unwrap();
    let throttled = said.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap();
    assert_ne!(throttled, "0", "{said}");
}

#[tokio::test]
async fn without_control_groups_limits_are_refused_by_name() {
    let mut rig = Rig::with(Cgroups::Never).await;
    let offers = rig.keeper.offers().clone();
    assert!(offers.memory.is_err() && offers.cpu.is_err() && offers.pids.is_err());
    for (limits, name) in [
        (Limits { memory_bytes: 1 << 30, ..Default::default() }, "memory"),
        (Limits { cpu_millis: 500, ..Default::default() }, "cpu"),
        (Limits { pids: 10, ..Default::default() }, "pids"),
    ] {
        let mut task = rig.argv(&["true"]);
        task.limits = Some(limits);
        let failed = rig.refused(task).await;
        assert_eq!(failed.phase, StartPhase::Limits);
        assert!(failed.failure.message.contains(&format!("the {name} limit")), "{}", failed.failure);
    }
    assert_eq!(rig.run(rig.argv(&["true"])).await.ended.exit, Exit::Code(0));
}
