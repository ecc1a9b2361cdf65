//! What the agent runs, and what becomes of it.

use std::time::Duration;

use executr_agent_protocol::driver::{AgentError, Event, Exit, File, FileContent, StartPhase, StartTask};
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Rig, bytes_of, lives, run, see, until, until_said, within};

#[tokio::test]
async fn a_task_is_told_from_start_to_end() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let seen = run(&agent, rig.sh("printf out; printf err >&2; exit 7")).await;
    assert_eq!((&seen.stdout[..], &seen.stderr[..]), (&b"out"[..], &b"err"[..]));
    assert_eq!(seen.ended.exit, Exit::Code(7));
    assert!(seen.ended.usage.peak_memory > 0);
    assert_eq!(run(&agent, rig.sh("kill -KILL $$")).await.ended.exit, Exit::Signal(9));
    drop(agent);
    rig.ended().await;
}

#[tokio::test]
async fn many_tasks_run_at_once_and_none_is_left() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let tasks = (0..40).map(|number| {
        let (agent, task) = (agent.clone(), rig.sh(&format!("echo {number}; exit {number}")));
        async move { (number, run(&agent, task).await) }
    });
    let mut all = tokio::task::JoinSet::new();
    tasks.for_each(|task| drop(all.spawn(task)));
    while let Some(done) = all.join_next().await {
        let (number, seen) = done.unwrap();
        assert_eq!(seen.stdout, format!("{number}\n").into_bytes());
        assert_eq!(seen.ended.exit, Exit::Code(number));
    }
    within(async {
        while !agent.tasks().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let failed = |task: StartTask| async { see(within(agent.start(task)).await.unwrap()).await.unwrap_err() };
    let none = failed(rig.argv(&["no-such-program"])).await;
    assert_eq!(none.phase, StartPhase::Exec);
    let nobody = failed(StartTask { user: "no-such-user".into(), ..rig.sh("true") }).await;
    assert_eq!(nobody.phase, StartPhase::User);
    assert!(nobody.failure.message.contains("no-such-user"), "{}", nobody.failure.message);
    let empty = failed(StartTask { argv: Vec::new(), ..rig.sh("true") }).await;
    assert_eq!(empty.phase, StartPhase::Request);
}

#[tokio::test]
async fn large_output_arrives_whole() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let script =
        "i=0; while [ $i -lt 20 ]; do head -c 1000003 /dev/zero; head -c 500001 /dev/zero >&2; i=$((i+1)); done";
    let seen = run(&agent, rig.sh(script)).await;
    assert_eq!((seen.stdout.len(), seen.stderr.len()), (20 * 1_000_003, 20 * 500_001));
}

#[tokio::test]
async fn a_tree_is_ended_with_a_grace_and_without() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut task =
        within(agent.start(rig.sh("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done")))
            .await
            .unwrap();
    until_said(&mut task, "ready").await;
    task.end(Duration::from_secs(20));
    assert_eq!(see_end(&mut task).await, Exit::Code(5));

    let mut task =
        within(agent.start(rig.sh("trap '' TERM; (setsid sleep 1000 & echo $!); exec sleep 1000"))).await.unwrap();
    let left = until_said(&mut task, "\n").await.trim().parse().unwrap();
    task.end(Duration::ZERO);
    assert_eq!(see_end(&mut task).await, Exit::Signal(9));
    assert!(!lives(left), "an end is an end");
}

async fn see_end(task: &mut executr_agent_protocol::driver::AgentTask) -> Exit {
    loop {
        match within(task.next()).await.unwrap().unwrap() {
            Event::Ended(ended) => return ended.exit,
            Event::StartFailed(failed) => panic!("{failed:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_dropped_task_is_ended() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut task = within(agent.start(rig.sh("echo $$; exec sleep 1000"))).await.unwrap();
    let pid = until_said(&mut task, "\n").await.trim().parse().unwrap();
    drop(task);
    within(agent.settle()).await;
    assert!(!lives(pid));
    assert_eq!(run(&agent, rig.sh("exit 2")).await.ended.exit, Exit::Code(2));
}

#[tokio::test]
async fn what_a_killed_keeper_left_is_ended_and_the_task_is_lost() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut task = within(agent.start(rig.sh("echo $PPID; (setsid sh -c 'echo $$; exec sleep 1000' &); sleep 1000")))
        .await
        .unwrap();
    let mut said = until_said(&mut task, "\n").await;
    if said.lines().count() < 2 {
        said += &until_said(&mut task, "\n").await;
    }
    let [keeper, left] = said.lines().map(|line| line.parse::<u32>().unwrap()).collect::<Vec<_>>()[..] else {
        panic!("{said}")
    };
    kill_process(Pid::from_raw(keeper.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let error = loop {
        match within(task.next()).await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AgentError::TaskLost(_)), "{error}");
    until("nothing is left", || !lives(left)).await;
    drop(task);
    assert_eq!(run(&agent, rig.sh("exit 0")).await.ended.exit, Exit::Code(0), "another keeper does it");
}

#[tokio::test]
async fn a_keeper_killed_while_it_rests_costs_nothing() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let keeper = String::from_utf8(run(&agent, rig.sh("echo $PPID")).await.stdout).unwrap();
    let keeper: i32 = keeper.trim().parse().unwrap();
    kill_process(Pid::from_raw(keeper).unwrap(), Signal::KILL).unwrap();
    until("it is gone", || !lives(keeper.unsigned_abs())).await;
    assert_eq!(run(&agent, rig.sh("exit 8")).await.ended.exit, Exit::Code(8));
}

#[tokio::test]
async fn a_signal_reaches_what_runs_and_ends_the_agent() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut task =
        within(agent.start(rig.sh("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"))).await.unwrap();
    until_said(&mut task, "ready").await;
    kill_process(Pid::from_raw(rig.process.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(see_end(&mut task).await, Exit::Code(9));
    drop((task, agent));
    rig.ended().await;
}

#[tokio::test]
async fn files_and_directories_are_made_read_and_removed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let directory = rig.path("made");
    within(agent.make_directory(&directory, 0o751, "")).await.unwrap().unwrap();
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o751);
    let again = within(agent.make_directory(&directory, 0o751, "")).await.unwrap().unwrap_err();
    assert_eq!(again.path, directory);

    let file = File { path: "script".into(), content: "text".into(), mode: 0o740 };
    within(agent.put_files(&directory, vec![file.clone()], "")).await.unwrap().unwrap();
    assert_eq!(std::fs::metadata(directory.join("script")).unwrap().permissions().mode() & 0o7777, 0o740);
    assert!(within(agent.put_files(&directory, vec![file], "")).await.unwrap().is_err(), "it exists");

    let read = |path: std::path::PathBuf, limit| {
        let agent = agent.clone();
        async move { within(agent.read_file(path, limit)).await.unwrap() }
    };
    assert_eq!(read(directory.join("script"), 100).await.unwrap(), FileContent::Bytes("text".into()));
    assert_eq!(read(directory.join("script"), 2).await.unwrap(), FileContent::Bytes("tex".into()));
    assert_eq!(read(directory.join("none"), 2).await.unwrap(), FileContent::Missing);
    symlink("script", directory.join("link")).unwrap();
    assert!(read(directory.join("link"), 2).await.unwrap_err().message.contains("link"));
    assert!(read(directory.clone(), 2).await.is_err());
    assert_eq!(
        within(agent.take_file(directory.join("script"), 9)).await.unwrap().unwrap(),
        FileContent::Bytes("text".into())
    );
    assert!(!directory.join("script").exists());

    within(agent.remove_directory(&directory)).await.unwrap().unwrap();
    assert!(!directory.exists());
    within(agent.remove_directory(&directory)).await.unwrap().unwrap();
    let error = within(agent.remove_directory("relative")).await.unwrap_err();
    assert!(matches!(&error, AgentError::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_job_directory_goes_with_its_task() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let directory = rig.path("job");
    let task = StartTask {
        directory: bytes_of(&directory),
        create_directory: true,
        remove_directory: true,
        ..rig.sh("touch file; pwd")
    };
    let seen = run(&agent, task).await;
    assert_eq!(String::from_utf8(seen.stdout).unwrap().trim(), directory.to_str().unwrap());
    assert!(!directory.exists());
}
