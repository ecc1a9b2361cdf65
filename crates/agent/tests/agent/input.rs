//! Standard input, terminals, and signals to a whole tree.

use std::time::Duration;

use bytes::Bytes;
use executr_agent_protocol::driver::{Agent, AgentTask, Event, Exit, Input, Pipe, StartTask, Stream, Terminal};

use crate::rig::{Rig, run, until_said, within};

fn fed(task: StartTask) -> StartTask {
    StartTask { input: Some(Input::Pipe(Pipe {})), ..task }
}

fn in_terminal(task: StartTask) -> StartTask {
    let terminal = Terminal { rows: 33, columns: 111, term: "vt220".into() };
    StartTask { input: Some(Input::Terminal(terminal)), ..task }
}

async fn start(agent: &Agent, task: StartTask) -> AgentTask {
    within(agent.start(task)).await.unwrap()
}

/// Reads to the end; what was written to stdout, and how it ended.
async fn rest(task: &mut AgentTask) -> (Vec<u8>, Exit) {
    let mut said = Vec::new();
    loop {
        match within(task.next()).await.unwrap().unwrap() {
            Event::Output { stream, data, .. } => {
                assert_eq!(stream, Stream::Stdout, "{}", String::from_utf8_lossy(&data));
                said.extend_from_slice(&data);
            }
            Event::Ended(ended) => return (said, ended.exit),
            Event::StartFailed(failed) => panic!("{failed:?}"),
            Event::Started { .. } | Event::InputTaken { .. } => {}
        }
    }
}

#[tokio::test]
async fn what_is_written_comes_back_from_cat() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut task = start(&agent, fed(rig.argv(&["cat"]))).await;
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut given, mut seen) = (0, Vec::new());
    let exit = loop {
        let room = usize::try_from(task.input_room()).unwrap().min(data.len() - given);
        if room > 0 {
            task.write_input(Bytes::copy_from_slice(&data[given..given + room]));
            given += room;
            if given == data.len() {
                task.close_input();
            }
        }
        match within(task.next()).await.unwrap().unwrap() {
            Event::Output { data, .. } => seen.extend_from_slice(&data),
            Event::Ended(ended) => break ended.exit,
            Event::InputTaken { offset } => assert!(offset <= given as u64),
            Event::Started { .. } | Event::StartFailed(_) => {}
        }
    };
    assert!(seen == data, "{} bytes of {}", seen.len(), data.len());
    assert_eq!(exit, Exit::Code(0));
}

#[tokio::test]
async fn input_nobody_reads_holds_nothing_up() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    // Closed at once, never read, and not there at all.
    for task in [fed(rig.sh("exec <&-; sleep 0.05; exit 4")), fed(rig.sh("exit 4")), rig.sh("cat; exit 4")] {
        let mut task = start(&agent, task).await;
        task.write_input(Bytes::from(vec![b'x'; 1_000_000]));
        task.close_input();
        assert_eq!(rest(&mut task).await, (Vec::new(), Exit::Code(4)));
        task.write_input("after the end".into());
    }
}

#[tokio::test]
async fn a_stalled_reader_can_be_ended() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut task = start(&agent, fed(rig.sh("echo ready; exec sleep 1000"))).await;
    task.write_input(Bytes::from(vec![b'x'; 1_000_000]));
    until_said(&mut task, "ready").await;
    assert_eq!(task.input_room(), 0);
    task.end(Duration::ZERO);
    assert_eq!(rest(&mut task).await.1, Exit::Signal(9));
}

#[tokio::test]
async fn a_terminal_is_one_and_has_its_size() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let script = "test -t 0 && test -t 1 && test -t 2 && : > /dev/tty && stty size && echo $TERM && echo to-stderr >&2";
    let task = StartTask { env: vec!["PATH=/usr/bin:/bin".into(), "TERM=dumb".into()], ..rig.sh(script) };
    let seen = run(&agent, in_terminal(task)).await;
    assert_eq!(String::from_utf8(seen.stdout).unwrap(), "33 111\r\nvt220\r\nto-stderr\r\n");
    assert_eq!((seen.ended.exit, seen.stderr.len()), (Exit::Code(0), 0));
}

#[tokio::test]
async fn a_terminal_can_be_resized_and_interrupted() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let script =
        "trap 'echo size $(stty size)' WINCH; trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.01; done";
    let mut task = start(&agent, in_terminal(rig.sh(script))).await;
    until_said(&mut task, "ready").await;
    task.resize(50, 60);
    until_said(&mut task, "size 50 60").await;
    task.write_input("\x03".into());
    let (said, exit) = rest(&mut task).await;
    assert!(String::from_utf8_lossy(&said).contains("caught"));
    assert_eq!(exit, Exit::Code(7));
}

#[tokio::test]
async fn a_shell_in_a_terminal_ends_with_its_input() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let mut task = start(&agent, in_terminal(rig.argv(&["/bin/sh"]))).await;
    task.write_input("echo $((6 * 7))\n".into());
    until_said(&mut task, "42").await;
    task.close_input();
    assert_eq!(rest(&mut task).await.1, Exit::Code(0));
}

#[tokio::test]
async fn all_output_of_a_terminal_comes_before_the_end() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    for _ in 0..5 {
        let seen = run(&agent, in_terminal(rig.argv(&["seq", "40000"]))).await;
        let lines = (1..=40_000).map(|number| format!("{number}\r\n")).collect::<String>();
        assert!(seen.stdout == lines.as_bytes(), "{} bytes of {}", seen.stdout.len(), lines.len());
    }
}

#[tokio::test]
async fn a_signal_reaches_every_process_of_the_tree() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let child = "trap 'echo child' USR1; echo ready; while :; do sleep 0.01; done";
    let script =
        format!("exec 2>/dev/null; trap 'echo parent' USR1; setsid sh -c \"{child}\" & while :; do sleep 0.01; done");
    let mut task = start(&agent, rig.sh(&script)).await;
    until_said(&mut task, "ready").await;
    task.signal(10);
    let mut said = until_said(&mut task, "\n").await;
    while !(said.contains("child") && said.contains("parent")) {
        said += &until_said(&mut task, "\n").await;
    }
    within(task.finish()).await.unwrap();
}
