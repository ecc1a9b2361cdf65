//! However a task ends, nothing of it is left.

use std::time::Duration;

use executr_agent_protocol::driver::{Cgroups, Event, Exit, KeeperError};

use crate::rig::{Rig, lives, see, until, until_said, within};

/// Twice daemonised, in sessions of its own, deaf to SIGTERM; says its process ids when all stand.
const DAEMON: &str = r#"
trap '' TERM
setsid sh -c 'trap "" TERM; (setsid sh -c "trap \"\" TERM; echo pid \$\$; echo standing; while :; do sleep 1000; done" &); sleep 1000' &
echo pid $$
while :; do sleep 1000; done
"#;

fn pids(said: &[u8]) -> Vec<u32> {
    String::from_utf8_lossy(said).lines().filter_map(|line| line.strip_prefix("pid ")?.parse().ok()).collect()
}

async fn end_daemon(cgroups: Cgroups, grace: Duration) {
    let mut rig = Rig::with(cgroups).await;
    let task = rig.sh(DAEMON);
    let mut task = rig.keeper.start(task).await.unwrap();
    let mut said = until_said(&mut task, "standing").await;
    while pids(&said).len() < 2 {
        said.extend(until_said(&mut task, "pid").await);
    }
    let pids = pids(&said);
    assert!(pids.iter().all(|pid| lives(*pid)), "{pids:?}");
    task.end(grace).await.unwrap();
    let seen = see(task).await.unwrap();
    assert_eq!(seen.ended.exit, Exit::Signal(9));
    assert!(!pids.iter().any(|pid| lives(*pid)), "{pids:?} outlived the end");
}

#[tokio::test]
async fn a_double_forked_daemon_is_gone_when_the_end_is_told() {
    end_daemon(Cgroups::WhereWritable, Duration::ZERO).await;
}

#[tokio::test]
async fn the_same_without_control_groups() {
    end_daemon(Cgroups::Never, Duration::ZERO).await;
}

#[tokio::test]
async fn the_same_after_a_grace() {
    end_daemon(Cgroups::WhereWritable, Duration::from_millis(50)).await;
    end_daemon(Cgroups::Never, Duration::from_millis(50)).await;
}

#[tokio::test]
async fn grace_lets_a_task_end_itself() {
    for cgroups in [Cgroups::WhereWritable, Cgroups::Never] {
        let mut rig = Rig::with(cgroups).await;
        let task = rig.sh("trap 'echo bye; exit 3' TERM; echo standing; while :; do sleep 0.01; done");
        let mut task = rig.keeper.start(task).await.unwrap();
        until_said(&mut task, "standing").await;
        task.end(Duration::from_secs(1000)).await.unwrap();
        let mut said = Vec::new();
        let ended = loop {
            match within(task.next()).await.unwrap().unwrap() {
                Event::Output { data, .. } => said.extend_from_slice(&data),
                Event::Ended(ended) => break ended,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ended.exit, Exit::Code(3));
        assert!(String::from_utf8_lossy(&said).contains("bye"));
    }
}

#[tokio::test]
async fn a_shorter_grace_said_later_counts() {
    let mut rig = Rig::new().await;
    let task = rig.sh("trap '' TERM; echo standing; while :; do sleep 1000; done");
    let mut task = rig.keeper.start(task).await.unwrap();
    until_said(&mut task, "standing").await;
    task.end(Duration::MAX).await.unwrap();
    task.end(Duration::from_secs(1000)).await.unwrap();
    task.end(Duration::from_millis(1)).await.unwrap();
    assert_eq!(see_end(task).await, Exit::Signal(9));
}

async fn see_end(mut task: executr_agent_protocol::driver::Task<'_>) -> Exit {
    loop {
        if let Event::Ended(ended) = within(task.next()).await.unwrap().unwrap() {
            return ended.exit;
        }
    }
}

#[tokio::test]
async fn background_children_do_not_outlive_the_first_process() {
    for cgroups in [Cgroups::WhereWritable, Cgroups::Never] {
        let mut rig = Rig::with(cgroups).await;
        let seen = rig.run(rig.sh("sleep 1000 & echo pid $!; setsid sleep 1000 & echo pid $!; exit 7")).await;
        assert_eq!(seen.ended.exit, Exit::Code(7));
        let pids = pids(&seen.stdout);
        assert_eq!(pids.len(), 2);
        assert!(!pids.iter().any(|pid| lives(*pid)));
    }
}

#[tokio::test]
async fn what_forks_all_the_time_is_ended() {
    for cgroups in [Cgroups::WhereWritable, Cgroups::Never] {
        let mut rig = Rig::with(cgroups).await;
        // Each process starts its successor and exits: never two alike when one looks.
        std::fs::write(rig.path("hop"), "setsid sh hop & exit\n").unwrap();
        let task = rig.sh("sh hop & echo standing; sleep 1000");
        let mut task = rig.keeper.start(task).await.unwrap();
        until_said(&mut task, "standing").await;
        task.end(Duration::ZERO).await.unwrap();
        assert_eq!(see_end(task).await, Exit::Signal(9));
        assert_eq!(rig.run(rig.argv(&["true"])).await.ended.exit, Exit::Code(0));
    }
}

#[tokio::test]
async fn signals_reach_the_process_group() {
    let mut rig = Rig::new().await;
    // Short sleeps: one that the shell was just about to start may miss the signal, and is waited for.
    let task = rig.sh("trap 'echo got; exit 5' USR1; echo standing; while :; do sleep 0.01; done");
    let mut task = rig.keeper.start(task).await.unwrap();
    until_said(&mut task, "standing").await;
    task.signal(libc::SIGUSR1.unsigned_abs()).await.unwrap();
    assert_eq!(see_end(task).await, Exit::Code(5));
}

#[tokio::test]
async fn a_dropped_task_is_ended_and_the_keeper_free() {
    let mut rig = Rig::new().await;
    let task = rig.sh("sleep 1000 & echo pid $!; echo pid $$; echo standing; sleep 1000");
    let mut task = rig.keeper.start(task).await.unwrap();
    let said = until_said(&mut task, "standing").await;
    drop(task);
    assert_eq!(rig.run(rig.argv(&["true"])).await.ended.exit, Exit::Code(0));
    assert!(!pids(&said).iter().any(|pid| lives(*pid)));
}

#[tokio::test]
async fn when_the_driver_hangs_up_all_is_ended_and_removed() {
    for cgroups in [Cgroups::WhereWritable, Cgroups::Never] {
        let mut rig = Rig::with(cgroups).await;
        let job = rig.path("job");
        let mut task = rig.sh(DAEMON);
        task.directory = crate::rig::bytes_of(&job);
        task.create_directory = true;
        task.remove_directory = true;
        let keeper = rig.keeper.pid();
        let mut task = rig.keeper.start(task).await.unwrap();
        let said = until_said(&mut task, "standing").await;
        // Not dropped: dropping a task ends it by itself.
        std::mem::forget(task);
        let status = within(rig.keeper.close()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
        assert!(!pids(&said).iter().any(|pid| lives(*pid)));
        assert!(!lives(keeper));
        assert!(!job.exists());
        assert!(!group_of(keeper), "its control group is left");
    }
}

fn group_of(_keeper: u32) -> bool {
    let own = format!("executr-{}-", std::process::id());
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer"].iter().any(|home| {
        let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&own))
    })
}

#[tokio::test]
async fn a_dropped_keeper_ends_everything() {
    let mut rig = Rig::new().await;
    let task = rig.sh(DAEMON);
    let keeper = rig.keeper.pid();
    let mut task = rig.keeper.start(task).await.unwrap();
    let said = until_said(&mut task, "standing").await;
    std::mem::forget(task);
    drop(rig.keeper);
    until("keeper and task are gone", || !lives(keeper) && !pids(&said).iter().any(|pid| lives(*pid))).await;
}

#[tokio::test]
async fn a_successor_ends_what_a_killed_keeper_left() {
    let mut rig = Rig::new().await;
    let has_group = group_of(rig.keeper.pid());
    let task = rig.sh(DAEMON);
    let keeper = rig.keeper.pid();
    let mut task = rig.keeper.start(task).await.unwrap();
    let said = until_said(&mut task, "standing").await;
    std::process::Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap();
    loop {
        match within(task.next()).await {
            Ok(_) => {}
            Err(KeeperError::Died { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    drop(task);
    within(rig.keeper.respawn()).await.unwrap();
    if has_group {
        until("what was left is gone", || !pids(&said).iter().any(|pid| lives(*pid))).await;
    } else {
        // Nothing but a group could tell whose these are.
        for pid in pids(&said) {
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        }
    }
}

#[tokio::test]
async fn usage_is_the_whole_trees() {
    let mut rig = Rig::new().await;
    // The kernel ends each after about one second of processor time; one of them is twice forked and in another session.
    let burn = "ulimit -t 1; while :; do :; done";
    let two = rig.run(rig.sh(&format!("(setsid sh -c '{burn}' &) | cat; sh -c '{burn}'"))).await.ended.usage;
    assert!(two.user + two.system >= Duration::from_millis(1500), "more than one alone can use: {two:?}");
    let large = rig.run(rig.sh("head -c 40000000 /dev/zero | tail -c 40000000 | wc -c")).await.ended.usage;
    assert!(large.peak_memory > 40_000_000, "{large:?}");
}
