//! Output: exact, in order, and never more of it in memory than fits the buffers.

use executr_agent_protocol::driver::{Event, Exit, Stream};

use crate::rig::{Rig, until_said, within};

#[tokio::test]
async fn both_streams_are_exact_and_apart() {
    let mut rig = Rig::new().await;
    let seen = rig.run(rig.sh("printf 'a\\000b'; printf '\\377err' >&2; printf c")).await;
    assert_eq!(seen.stdout, b"a\0bc");
    assert_eq!(seen.stderr, b"\xfferr");
}

#[tokio::test]
async fn large_output_is_exact() {
    let mut rig = Rig::new().await;
    let seen = rig.run(rig.sh("seq 1 2000000; seq 1 300000 >&2")).await;
    let numbers = |to: u32| (1..=to).flat_map(|number| format!("{number}\n").into_bytes()).collect::<Vec<u8>>();
    assert!(seen.stdout == numbers(2_000_000), "{} bytes of stdout", seen.stdout.len());
    assert!(seen.stderr == numbers(300_000), "{} bytes of stderr", seen.stderr.len());
}

#[tokio::test]
async fn output_comes_while_the_task_runs() {
    let mut rig = Rig::new().await;
    let task = rig.sh("echo first; read line < fifo; echo $line");
    std::process::Command::new("mkfifo").arg(rig.path("fifo")).status().unwrap();
    let fifo = rig.path("fifo");
    let mut task = rig.keeper.start(task).await.unwrap();
    until_said(&mut task, "first").await;
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "second\n")).await.unwrap().unwrap();
    until_said(&mut task, "second").await;
}

#[tokio::test]
async fn what_was_written_by_children_before_the_end_is_kept() {
    let mut rig = Rig::new().await;
    for _ in 0..20 {
        let seen = rig.run(rig.sh("(head -c 200000 /dev/zero)")).await;
        assert_eq!(seen.stdout.len(), 200_000);
        assert_eq!(seen.ended.exit, Exit::Code(0));
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_task_up_and_not_the_keepers_memory() {
    let mut rig = Rig::new().await;
    let keeper = rig.keeper.pid();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{keeper}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().to_owned();
        line.trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = resident();
    let task = rig.sh("head -c 100000000 /dev/zero");
    let mut task = rig.keeper.start(task).await.unwrap();
    let Some(Event::Started { pid }) = within(task.next()).await.unwrap() else { panic!("not started") };
    // Nobody reads now: the writer must come to stand in a write to its full pipe.
    crate::rig::until("the writer waits for its pipe", || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let wchan = std::fs::read_to_string(entry.path().join("wchan")).unwrap_or_default();
            let session = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let ours = session.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3).map(str::to_owned));
            comm.trim() == "head" && wchan.contains("pipe_write") && ours == Some(pid.to_string())
        })
    })
    .await;
    assert!(resident() < before + 4 * 1024, "{} KiB before, {} KiB now", before, resident());
    let mut length = 0;
    let ended = loop {
        match within(task.next()).await.unwrap().unwrap() {
            Event::Output { stream: Stream::Stdout, offset, data } => {
                assert_eq!(offset, length);
                assert!(data.iter().all(|byte| *byte == 0));
                length += data.len() as u64;
            }
            Event::Ended(ended) => break ended,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((length, ended.exit), (100_000_000, Exit::Code(0)));
    assert!(resident() < before + 4 * 1024, "{} KiB before, {} KiB after", before, resident());
}

#[tokio::test]
async fn a_task_nobody_listens_to_can_be_ended() {
    let mut rig = Rig::new().await;
    let endless = rig.sh("exec cat /dev/zero");
    let mut task = rig.keeper.start(endless).await.unwrap();
    within(task.next()).await.unwrap();
    drop(task);
    assert_eq!(rig.run(rig.argv(&["true"])).await.ended.exit, Exit::Code(0));
}
