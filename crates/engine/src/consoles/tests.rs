//! A place where everything echoes, and callers who say what a test says.

use std::collections::VecDeque;

use async_trait::async_trait;
use executr_api::console::{ConsoleAsk, ConsoleEnd, ConsoleFrame, ConsoleLine, ConsoleWindow};
use executr_api::output::OutputChunk;
use executr_api::{ApiError, ByteStream, ErrorCode, Fence, Orders, Report};
use executr_executors::contract::{
    Console, ConsolePlan, Ended, Event, ExecutorError, Exit, Failure, MAX_CONSOLE_INPUT, PeakMemory, StartFailed,
    StartPhase, Stream, Usage,
};
use executr_spec::Digest;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A place where everything echoes, and nothing but `there` can be started.
#[derive(Default)]
struct Echoes {
    there: &'static str,
    /// How consoles were ended, and when each is gone.
    ended: Arc<Mutex<Vec<Duration>>>,
    let_go: Option<Arc<Notify>>,
}

struct Echo {
    events: VecDeque<Event>,
    taken: u64,
    woken: Arc<Notify>,
    ended: Arc<Mutex<Vec<Duration>>>,
    let_go: Option<Arc<Notify>>,
    dies: bool,
}

#[async_trait]
impl contract::Consoles for Echoes {
    async fn open(&self, plan: ConsolePlan) -> Result<Box<dyn Console>, ExecutorError> {
        let mut echo = Echo {
            events: VecDeque::new(),
            taken: 0,
            woken: Arc::default(),
            ended: Arc::clone(&self.ended),
            let_go: self.let_go.clone(),
            dies: false,
        };
        echo.say(if plan.argv[0] == self.there {
            Event::Started { pid: 1 }
        } else {
            let failure = Failure { errno: 2, message: "there is no such program".to_owned(), path: PathBuf::new() };
            Event::StartFailed(StartFailed { phase: StartPhase::Exec, failure, removal_failure: None })
        });
        Ok(Box::new(echo))
    }
}

impl Echo {
    fn say(&mut self, event: Event) {
        self.events.push_back(event);
        self.woken.notify_one();
    }

    fn exit(&mut self, code: i32) {
        let usage = Usage {
            user: Duration::ZERO,
            system: Duration::ZERO,
            peak_memory: 0,
            peak_memory_of: PeakMemory::LargestProcess,
        };
        self.say(Event::Ended(Ended { exit: Exit::Code(code), usage, oom_killed: false, removal_failure: None }));
    }
}

#[async_trait]
impl Console for Echo {
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError> {
        loop {
            if self.dies {
                if let Some(let_go) = self.let_go.take() {
                    let_go.notified().await;
                }
                return Ok(None);
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            self.woken.notified().await;
        }
    }

    async fn write_input(&mut self, data: Bytes, last: bool) -> Result<(), ExecutorError> {
        self.taken += data.len() as u64;
        self.say(Event::InputTaken { offset: self.taken });
        self.say(Event::Output { stream: Stream::Stdout, offset: 0, data });
        if last {
            self.exit(7);
        }
        Ok(())
    }

    async fn resize(&mut self, rows: u16, columns: u16) -> Result<(), ExecutorError> {
        self.say(Event::Output { stream: Stream::Stdout, offset: 0, data: format!("{rows}x{columns}").into() });
        Ok(())
    }

    async fn signal(&mut self, signal: u8) -> Result<(), ExecutorError> {
        self.exit(i32::from(signal));
        Ok(())
    }

    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError> {
        self.ended.lock().unwrap().push(grace);
        self.dies = true;
        Ok(())
    }
}

/// Gives out one line.
struct Lines(Mutex<Option<ConsoleLine>>);

#[async_trait]
impl WorkerApi for Lines {
    async fn exchange(&self, _: Report) -> Result<Orders, ApiError> {
        Err(unasked())
    }
    async fn append_output(&self, _: &Fence, _: &str, _: OutputChunk) -> Result<u64, ApiError> {
        Err(unasked())
    }
    async fn blob(&self, _: Digest, _: u64, _: &str) -> Result<ByteStream, ApiError> {
        Err(unasked())
    }
    async fn missing_blobs(&self, _: &Fence, _: &str, _: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        Err(unasked())
    }
    async fn put_blob(&self, _: &Fence, _: &str, _: Digest, _: ByteStream) -> Result<(), ApiError> {
        Err(unasked())
    }
    async fn join_console(&self, _: ConsoleId) -> Result<ConsoleLine, ApiError> {
        self.0.lock().unwrap().take().ok_or_else(unasked)
    }
}

fn unasked() -> ApiError {
    ApiError::new(ErrorCode::Internal, "nobody asks that here")
}

const JOB: JobId = JobId(Uuid::nil());

/// The caller's end of a console in [`JOB`], which is asked for.
async fn asked(consoles: &Consoles, command: &[&str]) -> ConsoleLine {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let api: Arc<dyn WorkerApi> = Arc::new(Lines(Mutex::new(Some(ConsoleLine::over(theirs)))));
    consoles.serve(&api, ConsoleOrder { console: ConsoleId(Uuid::new_v4()), job: JOB, by: "a test".to_owned() });
    let mut line = ConsoleLine::over(ours);
    let command = command.iter().map(|&word| word.to_owned()).collect();
    line.sink.send(ConsoleFrame::Ask(ConsoleAsk { command, terminal: None })).await.unwrap();
    line
}

async fn said(line: &mut ConsoleLine) -> ConsoleFrame {
    loop {
        match timeout(PATIENCE, line.frames.next()).await.unwrap().unwrap().unwrap() {
            ConsoleFrame::Alive => {}
            frame => return frame,
        }
    }
}

fn here(consoles: &Consoles, echoes: Echoes) -> Here {
    let mut here = consoles.enter(JOB);
    here.in_sandbox(Some(Arc::new(echoes)));
    here.runs(vec![Bytes::from_static(b"A=b")], None);
    here
}

fn why(frame: ConsoleFrame) -> String {
    match frame {
        ConsoleFrame::End(ConsoleEnd::Ended { message } | ConsoleEnd::NotStarted { message }) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bytes_come_back_however_many_and_nobody_sends_more_than_is_taken() {
    let consoles = Consoles::default();
    let _here = here(&consoles, Echoes { there: "cat", ..Echoes::default() });
    let mut line = asked(&consoles, &["cat"]).await;
    assert_eq!(said(&mut line).await, ConsoleFrame::Started);
    let (mut sent, mut found, mut untaken) = (0_usize, 0_usize, 0_usize);
    let (total, mut window) = (3 << 20, ConsoleWindow::default());
    let byte = |at: usize| (at % 251) as u8;
    while found < total {
        let room = window.room().min(total - sent);
        if room > 0 {
            let bytes = (sent..sent + room).map(byte).collect();
            line.sink.send(ConsoleFrame::Input(bytes)).await.unwrap();
            window.sent(room);
            sent += room;
            continue;
        }
        match said(&mut line).await {
            ConsoleFrame::Taken(bytes) => window.taken(bytes),
            ConsoleFrame::Output { bytes, .. } => {
                assert!(bytes.iter().enumerate().all(|(at, found_byte)| *found_byte == byte(found + at)));
                found += bytes.len();
                untaken += bytes.len();
                assert!(untaken <= MAX_CONSOLE_INPUT as usize, "more than is taken");
                // Late, so that it has to wait.
                if untaken == MAX_CONSOLE_INPUT as usize || found == total {
                    line.sink.send(ConsoleFrame::Taken(u32::try_from(untaken).unwrap())).await.unwrap();
                    untaken = 0;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    line.sink.send(ConsoleFrame::InputEnd).await.unwrap();
    let end = loop {
        match said(&mut line).await {
            ConsoleFrame::Taken(_) => {}
            other => break other,
        }
    };
    assert_eq!(end, ConsoleFrame::End(ConsoleEnd::Exited { code: 7 }));
}

#[tokio::test]
async fn a_job_that_leaves_ends_its_consoles_first_and_says_why() {
    let consoles = Consoles::default();
    let (ended, let_go) = (Arc::default(), Arc::new(Notify::new()));
    let echoes = Echoes { there: "sh", ended: Arc::clone(&ended), let_go: Some(Arc::clone(&let_go)) };
    let here = here(&consoles, echoes);
    let mut line = asked(&consoles, &["sh"]).await;
    assert_eq!(said(&mut line).await, ConsoleFrame::Started);
    let over = here.over();
    tokio::pin!(over);
    tokio::select! {
        () = &mut over => panic!("its console is still there"),
        () = async { while ended.lock().unwrap().is_empty() { tokio::task::yield_now().await } } => {}
    }
    let_go.notify_one();
    timeout(PATIENCE, over).await.unwrap();
    assert_eq!(*ended.lock().unwrap(), [Duration::ZERO], "killed at once");
    assert!(why(said(&mut line).await).contains("the job is over"));
    let mut late = asked(&consoles, &["sh"]).await;
    assert!(why(said(&mut late).await).contains("the job is over"));
}

#[tokio::test]
async fn a_caller_who_is_gone_takes_the_command_along() {
    let consoles = Consoles::default();
    let ended: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let here = here(&consoles, Echoes { there: "sh", ended: Arc::clone(&ended), let_go: None });
    let mut line = asked(&consoles, &["sh"]).await;
    assert_eq!(said(&mut line).await, ConsoleFrame::Started);
    drop(line);
    let gone = async { here.spot.open.subscribe().wait_for(|open| *open == 0).await.map(|_| ()) };
    timeout(PATIENCE, gone).await.unwrap().unwrap();
    assert!(matches!(ended.lock().unwrap()[..], [grace] if !grace.is_zero()), "it is asked first");
}

#[tokio::test]
async fn what_cannot_be_had_is_refused() {
    let consoles = Consoles::default();
    let here = here(&consoles, Echoes { there: "sh", ..Echoes::default() });
    let mut none = asked(&consoles, &["vi"]).await;
    assert!(why(said(&mut none).await).contains("no such program"));
    let mut open = Vec::new();
    for _ in 0..MOST {
        // Without a command it is the first shell that is there.
        let mut line = asked(&consoles, &[]).await;
        assert_eq!(said(&mut line).await, ConsoleFrame::Started);
        open.push(line);
    }
    let mut more = asked(&consoles, &["sh"]).await;
    assert!(why(said(&mut more).await).contains("8 consoles"));
    let mut flood = open.pop().unwrap();
    // Nothing that comes back is taken here, so nothing is taken there in the end.
    for _ in 0..10 {
        drop(flood.sink.send(ConsoleFrame::Input(Bytes::from(vec![0; 64 << 10]))).await);
    }
    let told = loop {
        match said(&mut flood).await {
            ConsoleFrame::Output { .. } | ConsoleFrame::Taken(_) => {}
            other => break why(other),
        }
    };
    assert!(told.contains("more input"), "{told}");
    drop(here);
    let mut here = consoles.enter(JOB);
    here.in_sandbox(None);
    here.runs(Vec::new(), None);
    let mut nowhere = asked(&consoles, &["sh"]).await;
    assert!(why(said(&mut nowhere).await).contains("has no consoles"));
}
