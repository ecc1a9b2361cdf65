//! Streams that are cut, fall silent, or stay away: nothing is lost, doubled or left behind.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_agent_protocol::driver::{
    Agent, AgentError, AgentOptions, AgentTask, Dial, Duplex, Event, Exit, Input, Pipe, StartTask, Stream, UnixDial,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::rig::{Rig, bytes_of, lives, program, run, until, until_said, within};

/// What befalls streams to an agent.
#[derive(Default)]
struct Weather {
    /// A stream lasts for a random number of bytes below this; 0 is for ever.
    longest: AtomicU64,
    /// What the next one is drawn from.
    seed: AtomicU64,
    /// Streams so far.
    dialled: AtomicU64,
    /// No stream is to be had, and those there are, are cut.
    closed: AtomicBool,
    /// Those that were dialled so far pass nothing on any more.
    frozen: AtomicU64,
}

impl Weather {
    fn random(&self) -> u64 {
        let mut next = self.seed.load(Ordering::Relaxed);
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        self.seed.store(next, Ordering::Relaxed);
        next
    }
}

struct Stormy {
    way: UnixDial,
    weather: Arc<Weather>,
}

#[async_trait]
impl Dial for Stormy {
    async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        if self.weather.closed.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let number = self.weather.dialled.fetch_add(1, Ordering::Relaxed) + 1;
        let inner = self.way.dial().await?;
        Ok(Box::new(Line { inner, left: u64::MAX, number, weather: Arc::clone(&self.weather) }))
    }
}

/// A stream that lasts for so many bytes, both ways together.
struct Line {
    inner: Box<dyn Duplex>,
    left: u64,
    number: u64,
    weather: Arc<Weather>,
}

impl Line {
    fn is_up(&mut self) -> Poll<io::Result<usize>> {
        // Fewer bytes than a message has would never do.
        let longest = self.weather.longest.load(Ordering::Relaxed);
        if self.left == u64::MAX && longest > 0 {
            self.left = self.weather.random() % longest;
        }
        if self.left == 0 || self.weather.closed.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.number <= self.weather.frozen.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(usize::try_from(self.left).unwrap_or(usize::MAX)))
    }

    fn used(&mut self, bytes: usize) {
        if self.left < u64::MAX {
            self.left -= bytes as u64;
        }
    }
}

macro_rules! up {
    ($line:expr) => {
        match $line.is_up() {
            Poll::Ready(Ok(left)) => left,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    };
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = up!(self).min(into.remaining());
        let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
        let read = Pin::new(&mut self.inner).poll_read(context, &mut part);
        let length = part.filled().len();
        into.advance(length);
        self.used(length);
        read
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let most = up!(self).min(data.len());
        let written = Pin::new(&mut self.inner).poll_write(context, &data[..most]);
        if let Poll::Ready(Ok(written)) = &written {
            self.used(*written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        up!(self);
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

async fn stormy(rig: &Rig, options: AgentOptions) -> (Agent, Arc<Weather>) {
    let weather = Arc::new(Weather { seed: AtomicU64::new(0x9e37_79b9_7f4a_7c15), ..Weather::default() });
    let way = UnixDial(rig.socket());
    let dial = Stormy { way, weather: Arc::clone(&weather) };
    (within(Agent::connect(Arc::new(dial), options)).await.unwrap(), weather)
}

fn patient(patience: Duration) -> AgentOptions {
    AgentOptions { patience, ..AgentOptions::default() }
}

#[tokio::test]
async fn output_is_whole_however_often_the_stream_is_cut() {
    let rig = Rig::new().await;
    let (agent, weather) = stormy(&rig, patient(Duration::from_secs(25))).await;
    let log = rig.path("runs");
    let script = format!("echo run >> {}; seq 1 200000; seq 200000 300000 >&2; seq 1 100000; exit 3", log.display());
    let lines = |from: u32, to: u32| (from..=to).map(|number| format!("{number}\n")).collect::<String>();
    let (stdout, stderr) = (lines(1, 200_000) + &lines(1, 100_000), lines(200_000, 300_000));
    for longest in [2_000_000, 400_000, 150_000] {
        let before = weather.dialled.load(Ordering::Relaxed);
        weather.longest.store(longest, Ordering::Relaxed);
        let seen = run(&agent, rig.sh(&script)).await;
        weather.longest.store(0, Ordering::Relaxed);
        assert!(seen.stdout == stdout.as_bytes() && seen.stderr == stderr.as_bytes());
        assert_eq!(seen.ended.exit, Exit::Code(3));
        let cuts = weather.dialled.load(Ordering::Relaxed) - before;
        assert!(cuts > 1_000_000 / longest, "{cuts} cuts after {longest} bytes at most");
    }
    let runs = std::fs::read_to_string(log).unwrap();
    assert_eq!(runs, "run\n".repeat(3), "nothing was started twice");
}

#[tokio::test]
async fn short_tasks_run_once_though_every_stream_is_cut() {
    let rig = Rig::new().await;
    let (agent, weather) = stormy(&rig, patient(Duration::from_secs(25))).await;
    weather.longest.store(1_200, Ordering::Relaxed);
    let log = rig.path("runs");
    for number in 0..40 {
        let seen = run(&agent, rig.sh(&format!("echo {number} >> {}; echo said", log.display()))).await;
        assert_eq!(seen.stdout, b"said\n");
    }
    let expected: String = (0..40).map(|number| format!("{number}\n")).collect();
    assert_eq!(std::fs::read_to_string(log).unwrap(), expected);
    assert!(weather.dialled.load(Ordering::Relaxed) > 20);
}

#[tokio::test]
async fn input_is_whole_however_often_the_stream_is_cut() {
    let rig = Rig::new().await;
    let (agent, weather) = stormy(&rig, patient(Duration::from_secs(25))).await;
    weather.longest.store(300_000, Ordering::Relaxed);
    let task = StartTask { input: Some(Input::Pipe(Pipe {})), ..rig.argv(&["cat"]) };
    let mut task = within(agent.start(task)).await.unwrap();
    let data: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut given, mut seen) = (0, Vec::new());
    loop {
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
            Event::Ended(ended) => {
                assert_eq!(ended.exit, Exit::Code(0));
                break;
            }
            _ => {}
        }
    }
    assert!(seen == data, "{} bytes of {}", seen.len(), data.len());
    assert!(weather.dialled.load(Ordering::Relaxed) > 5);
}

#[tokio::test]
async fn signals_arrive_once_though_the_stream_is_cut() {
    let rig = Rig::new().await;
    let (agent, weather) = stormy(&rig, patient(Duration::from_secs(25))).await;
    let script =
        "trap 'echo got' USR1; trap 'echo bye; exit 6' TERM; echo ready; while :; do sleep 0.01; done 2>/dev/null";
    let mut task = within(agent.start(rig.sh(script))).await.unwrap();
    until_said(&mut task, "ready").await;
    for _ in 0..5 {
        // The next byte that is said is never heard.
        weather.closed.store(true, Ordering::Relaxed);
        task.signal(10);
        weather.closed.store(false, Ordering::Relaxed);
        assert_eq!(until_said(&mut task, "\n").await, "got\n");
    }
    weather.closed.store(true, Ordering::Relaxed);
    task.end(Duration::from_secs(20));
    weather.closed.store(false, Ordering::Relaxed);
    let seen = rest(&mut task).await;
    assert_eq!(seen, (b"bye\n".to_vec(), Exit::Code(6)));
}

async fn rest(task: &mut AgentTask) -> (Vec<u8>, Exit) {
    let mut said = Vec::new();
    loop {
        match within(task.next()).await.unwrap().unwrap() {
            Event::Output { stream: Stream::Stdout, data, .. } => said.extend_from_slice(&data),
            Event::Ended(ended) => return (said, ended.exit),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_replaced() {
    let rig = Rig::new().await;
    let options = AgentOptions { ping: Duration::from_millis(100), ..patient(Duration::from_secs(25)) };
    let (agent, weather) = stormy(&rig, options).await;
    let go = rig.path("go");
    let script = format!("echo ready; while ! test -e {}; do sleep 0.01; done; echo done", go.display());
    let mut task = within(agent.start(rig.sh(&script))).await.unwrap();
    until_said(&mut task, "ready").await;
    weather.frozen.store(1, Ordering::Relaxed);
    std::fs::write(go, "").unwrap();
    assert_eq!(rest(&mut task).await, (b"done\n".to_vec(), Exit::Code(0)));
    assert!(weather.dialled.load(Ordering::Relaxed) > 1);
}

#[tokio::test]
async fn after_the_patience_the_tree_is_ended_and_cleaned_up() {
    let rig = Rig::new().await;
    // The agent waits a few seconds more than its caller.
    let (agent, weather) = stormy(&rig, patient(Duration::from_millis(200))).await;
    let directory = rig.path("job");
    let task = StartTask {
        directory: bytes_of(&directory),
        create_directory: true,
        remove_directory: true,
        ..rig.sh("touch file; (setsid sleep 1000 & echo $!); exec sleep 1000")
    };
    let mut task = within(agent.start(task)).await.unwrap();
    let left = until_said(&mut task, "\n").await.trim().parse().unwrap();
    weather.closed.store(true, Ordering::Relaxed);
    // Said on a line that is down: found out at once.
    task.signal(0);
    let error = loop {
        match within(task.next()).await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, AgentError::Lost { .. }), "{error}");
    assert!(lives(left), "the agent waits longer than its caller");
    until("the tree is ended", || !lives(left)).await;
    until("the directory is removed", || !directory.exists()).await;
    drop(task);
    weather.closed.store(false, Ordering::Relaxed);
    assert_eq!(run(&agent, rig.sh("exit 5")).await.ended.exit, Exit::Code(5), "the agent itself goes on");
}

#[tokio::test]
async fn without_patience_a_cut_is_the_end() {
    let rig = Rig::new().await;
    let (agent, weather) = stormy(&rig, patient(Duration::ZERO)).await;
    let mut task = within(agent.start(rig.sh("(setsid sleep 1000 & echo $!); exec sleep 1000"))).await.unwrap();
    let left = until_said(&mut task, "\n").await.trim().parse().unwrap();
    weather.closed.store(true, Ordering::Relaxed);
    task.signal(0);
    let error = loop {
        match within(task.next()).await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, AgentError::Lost { .. }), "{error}");
    until("the tree is ended", || !lives(left)).await;
}

#[tokio::test]
async fn another_agent_in_its_place_is_found_out() {
    let mut rig = Rig::new().await;
    let (agent, _) = stormy(&rig, patient(Duration::from_secs(25))).await;
    let mut task = within(agent.start(rig.sh("echo ready; exec sleep 1000"))).await.unwrap();
    until_said(&mut task, "ready").await;
    rig.process.kill().unwrap();
    rig.process.wait().unwrap();
    std::fs::remove_file(rig.socket()).unwrap();
    let mut other = program();
    other.args(["serve", "--patience", "1", "--socket"]).arg(rig.socket());
    rig.process = other.spawn().unwrap();
    let error = loop {
        match within(task.next()).await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, AgentError::Restarted), "{error}");
    let again = within(agent.start(rig.sh("true"))).await.err().unwrap();
    assert!(matches!(&again, AgentError::Restarted), "{again}");
}

/// A field of /proc/PID/status or /proc/PID/io, in its own unit.
fn field(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_stopped_reader_holds_the_task_up_and_grows_nobody() {
    const MIB: u64 = 1024 * 1024;
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    for script in ["echo ready; exec yes", "echo ready; exec perl -e '$|=1; while (1) { print \"x\" }'"] {
        let mut task = within(agent.start(rig.sh(script))).await.unwrap();
        let Some(Event::Started { pid }) = within(task.next()).await.unwrap() else { panic!("it starts first") };
        until_said(&mut task, "ready").await;
        // Stopped: nobody asks for more, until it has written nothing for a good while.
        let (mut written, mut still) = (0, 0);
        until("it waits in its write", || {
            let now = field(pid, "io", "wchar:");
            still = if now == written && now > 0 { still + 1 } else { 0 };
            written = now;
            still > 50
        })
        .await;
        assert!(written < 6 * MIB, "{written} bytes are on their way");
        let resident = field(rig.process.id(), "status", "VmRSS:") / 1024;
        assert!(resident < 24, "the agent takes {resident} MiB");
        // Others go on meanwhile.
        assert_eq!(run(&agent, rig.sh("head -c 3000000 /dev/zero")).await.stdout.len(), 3_000_000);
        within(task.finish()).await.unwrap();
    }
}

#[tokio::test]
async fn a_task_whose_reader_is_away_keeps_its_end() {
    let rig = Rig::new().await;
    let (agent, weather) = stormy(&rig, patient(Duration::from_secs(25))).await;
    let done = rig.path("done");
    let script = format!("echo first; while ! test -e {0}.go; do sleep 0.01; done; echo last; : > {0}", done.display());
    let mut task = within(agent.start(rig.sh(&script))).await.unwrap();
    until_said(&mut task, "first").await;
    weather.closed.store(true, Ordering::Relaxed);
    std::fs::write(done.with_extension("go"), "").unwrap();
    until("it is over", || done.exists()).await;
    weather.closed.store(false, Ordering::Relaxed);
    let seen = rest(&mut task).await;
    assert_eq!(seen, (b"last\n".to_vec(), Exit::Code(0)));
    assert!(task.take_notes().iter().all(|note| note.text.contains("nobody followed")));
}
