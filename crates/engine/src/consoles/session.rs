//! One console: from the order, by way of the line to whoever wants it and the command in the sandbox, to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_api::console::{
    CONSOLE_ALIVE, CONSOLE_SILENCE, CONSOLE_WINDOW, ConsoleAsk, ConsoleEnd, ConsoleFrame, ConsoleLine, ConsoleOrder,
    ConsoleWindow, linger,
};
use executr_api::output::Stream;
use executr_api::{ApiError, WorkerApi};
use executr_executors::contract::{self, Console, ConsolePlan, Event, Exit, StartFailed, StartPhase};
use executr_spec::JobId;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout};

use super::{Consoles, MOST, Place, Room, Spot, There};

/// A lease and an order for its job come at the same time, and the lease has to reach its slot first.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long a tree may take to end by itself when nobody is there any more to whom it could say something.
const GRACE: Duration = Duration::from_secs(2);
/// How long the end of a tree that was killed may take.
const KILLED: Duration = Duration::from_secs(4);
/// How long the other end may take to take the last word.
const GOODBYE: Duration = Duration::from_secs(2);

/// How many frames are kept that come before the command runs.
const EARLY: usize = 1_024;

/// What `executr exec` runs when it isn't told what: the first of these that there is.
const SHELLS: [&str; 5] = ["bash", "sh", "/bin/bash", "/bin/sh", "/busybox/sh"];

/// Why a console ends without its command's own end.
enum Stop {
    /// For this reason, which its caller is told.
    Because(String),
    /// There is nobody to tell.
    Gone,
}

impl From<ApiError> for Stop {
    fn from(_: ApiError) -> Self {
        Self::Gone
    }
}

pub(super) async fn serve(consoles: Consoles, api: Arc<dyn WorkerApi>, order: ConsoleOrder) {
    let (job, by) = (order.job, order.by);
    let line = match api.join_console(order.console).await {
        Ok(line) => line,
        Err(error) => return tracing::debug!(%job, by, %error, "a console can't be opened"),
    };
    tracing::info!(%job, by, "a console is opened");
    let mut session = Session::new(line);
    let end = match session.run(&consoles, job).await {
        Ok(end) => end,
        Err(Stop::Because(message)) => ConsoleEnd::Ended { message },
        Err(Stop::Gone) => return tracing::info!(%job, by, "a console is over: its caller is gone"),
    };
    tracing::info!(%job, by, ?end, "a console is over");
    let goodbye = async {
        session.line.sink.send(ConsoleFrame::End(end)).await?;
        linger(&mut session.line.frames).await;
        Ok::<(), ApiError>(())
    };
    // Nobody may be there to take it.
    let _ = timeout(GOODBYE, goodbye).await;
}

struct Session {
    line: ConsoleLine,
    /// How much more its caller takes.
    window: ConsoleWindow,
    alive: Interval,
    heard: Instant,
    /// What its caller said before there was anybody to take it.
    early: VecDeque<ConsoleFrame>,
    /// How many bytes of input its caller has sent that weren't taken.
    untaken: u32,
}

impl Session {
    fn new(line: ConsoleLine) -> Self {
        let mut alive = tokio::time::interval(CONSOLE_ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (window, early) = (ConsoleWindow::default(), VecDeque::new());
        Self { line, window, alive, heard: Instant::now(), early, untaken: 0 }
    }

    async fn run(&mut self, consoles: &Consoles, job: JobId) -> Result<ConsoleEnd, Stop> {
        let ConsoleFrame::Ask(ask) = self.hear().await? else {
            return Err(Stop::Because("the first frame has to ask for something".to_owned()));
        };
        let spot = self.spot(consoles, job).await?;
        // Taken before the place is looked at: who leaves the place waits for all who may have seen it.
        let Some(room) = Room::take(&spot) else {
            return Err(Stop::Because(format!("{MOST} consoles are open in this job; end one first")));
        };
        let mut place = spot.place.subscribe();
        let there = self.there(&mut place).await?;
        let ended = self.open(&there, &ask, &mut place).await;
        drop(room);
        ended
    }

    /// Where the job's attempt is.
    async fn spot(&mut self, consoles: &Consoles, job: JobId) -> Result<Arc<Spot>, Stop> {
        let mut came = consoles.0.came.subscribe();
        let deadline = Instant::now() + ARRIVAL;
        loop {
            if let Some(spot) = consoles.spot(job) {
                return Ok(spot);
            }
            tokio::select! {
                changed = came.changed() => changed.map_err(|_| Stop::Gone)?,
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Stop::Because("the job doesn't run here any more".to_owned()));
                }
                early = self.hear() => self.keep(early?)?,
            }
        }
    }

    /// Waits until something runs there: before, there may be neither a directory nor an environment.
    async fn there(&mut self, place: &mut watch::Receiver<Place>) -> Result<Arc<There>, Stop> {
        loop {
            match &*place.borrow_and_update() {
                Place::There(there) => return Ok(Arc::clone(there)),
                Place::Over => return Err(over()),
                Place::NotYet => {}
            }
            tokio::select! {
                changed = place.changed() => changed.map_err(|_| over())?,
                early = self.hear() => self.keep(early?)?,
            }
        }
    }

    async fn open(
        &mut self,
        there: &There,
        ask: &ConsoleAsk,
        place: &mut watch::Receiver<Place>,
    ) -> Result<ConsoleEnd, Stop> {
        let Some(consoles) = &there.consoles else {
            let text = "the job's executor has no consoles: its own scripts, or its command, decide where jobs are";
            return Err(Stop::Because(text.to_owned()));
        };
        let word = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let shells = ask.command.is_empty().then(|| SHELLS.map(|shell| vec![word(shell)])).into_iter().flatten();
        let asked = (!ask.command.is_empty()).then(|| ask.command.iter().map(|text| word(text)).collect());
        let mut failed = None;
        for argv in asked.into_iter().chain(shells) {
            let plan = ConsolePlan {
                argv,
                env: there.env.clone(),
                workdir: there.workdir.clone(),
                terminal: ask.terminal.as_ref().map(|terminal| contract::Terminal {
                    rows: terminal.size.rows,
                    columns: terminal.size.columns,
                    kind: terminal.kind.clone(),
                }),
            };
            // A place that is left takes with it what is half open.
            let opened = tokio::select! {
                opened = consoles.open(plan) => opened,
                () = left(place) => return Err(over()),
            };
            let mut console = opened.map_err(|error| Stop::Because(error.to_string()))?;
            match self.attend(console.as_mut(), place).await? {
                Attended::Ended(end) => return Ok(end),
                Attended::NotStarted(why) => failed = Some(why),
            }
        }
        let why = failed.map_or_else(|| "there is nothing to run".to_owned(), |failed| explained(&failed, ask));
        Ok(ConsoleEnd::NotStarted { message: why })
    }

    /// Passes on what either side says until the command has ended.
    async fn attend(
        &mut self,
        console: &mut dyn Console,
        place: &mut watch::Receiver<Place>,
    ) -> Result<Attended, Stop> {
        let attended = tokio::select! {
            attended = self.converse(console) => attended,
            () = left(place) => Err(over()),
        };
        if let Err(why) = &attended {
            // To nobody any more, and not for long.
            let grace = if matches!(why, Stop::Gone) { GRACE } else { Duration::ZERO };
            tokio::select! {
                () = end(console, grace) => {}
                () = left(place), if !grace.is_zero() => end(console, Duration::ZERO).await,
            }
        }
        attended
    }

    async fn converse(&mut self, console: &mut dyn Console) -> Result<Attended, Stop> {
        let lost = |error: contract::ExecutorError| Stop::Because(format!("the command is lost: {error}"));
        let mut taken = 0;
        // Written, and more than its caller takes for now.
        let mut waiting: Option<(Stream, Bytes)> = None;
        while let Some(early) = self.early.pop_front() {
            self.pass_on(console, early).await?;
        }
        loop {
            if let Some((stream, bytes)) = &mut waiting {
                let room = self.window.room().min(bytes.len());
                if room > 0 {
                    let frame = ConsoleFrame::Output { stream: *stream, bytes: bytes.split_to(room) };
                    if bytes.is_empty() {
                        waiting = None;
                    }
                    self.window.sent(room);
                    self.line.sink.send(frame).await?;
                    continue;
                }
            }
            let event = tokio::select! {
                frame = self.hear() => {
                    let frame = frame?;
                    self.pass_on(console, frame).await?;
                    continue;
                }
                event = console.next(), if waiting.is_none() => event.map_err(lost)?,
            };
            match event {
                Some(Event::Started { .. }) => self.line.sink.send(ConsoleFrame::Started).await?,
                Some(Event::Output { stream, data, .. }) => {
                    let stream = match stream {
                        contract::Stream::Stdout => Stream::Stdout,
                        contract::Stream::Stderr => Stream::Stderr,
                    };
                    waiting = Some((stream, data)).filter(|(_, data)| !data.is_empty());
                }
                Some(Event::InputTaken { offset: all }) => {
                    let more = u32::try_from(all.saturating_sub(taken)).unwrap_or(u32::MAX);
                    taken = all;
                    self.untaken = self.untaken.saturating_sub(more);
                    self.line.sink.send(ConsoleFrame::Taken(more)).await?;
                }
                Some(Event::Ended(ended)) => {
                    return Ok(Attended::Ended(match ended.exit {
                        Exit::Code(code) => ConsoleEnd::Exited { code },
                        Exit::Signal(signal) => ConsoleEnd::Signalled { signal },
                    }));
                }
                Some(Event::StartFailed(failed)) => return Ok(Attended::NotStarted(failed)),
                None => return Err(Stop::Because("the command's end was never told".to_owned())),
            }
        }
    }

    async fn pass_on(&mut self, console: &mut dyn Console, frame: ConsoleFrame) -> Result<(), Stop> {
        let passed = match frame {
            ConsoleFrame::Input(bytes) => console.write_input(bytes, false).await,
            ConsoleFrame::InputEnd => console.write_input(Bytes::new(), true).await,
            ConsoleFrame::Resize(size) => console.resize(size.rows, size.columns).await,
            ConsoleFrame::Signal(signal) => console.signal(signal).await,
            _ => Ok(()),
        };
        passed.map_err(|error| Stop::Because(format!("the command is lost: {error}")))
    }

    /// Keeps what comes too early.
    fn keep(&mut self, early: ConsoleFrame) -> Result<(), Stop> {
        if self.early.len() >= EARLY {
            return Err(Stop::Because("too much was said before the command runs".to_owned()));
        }
        self.early.push_back(early);
        Ok(())
    }

    /// The next that the caller says to somebody else. May be dropped and asked for again.
    async fn hear(&mut self) -> Result<ConsoleFrame, Stop> {
        loop {
            let frame = tokio::select! {
                frame = self.line.frames.next() => frame,
                _ = self.alive.tick() => {
                    if self.heard.elapsed() >= CONSOLE_SILENCE {
                        return Err(Stop::Gone);
                    }
                    self.line.sink.send(ConsoleFrame::Alive).await?;
                    continue;
                }
            };
            self.heard = Instant::now();
            match frame {
                None | Some(Err(_)) => return Err(Stop::Gone),
                Some(Ok(ConsoleFrame::Alive)) => {}
                Some(Ok(ConsoleFrame::Taken(bytes))) => {
                    // Whoever waits for room looks again.
                    self.window.taken(bytes);
                    return Ok(ConsoleFrame::Alive);
                }
                Some(Ok(ConsoleFrame::Input(bytes))) => {
                    self.untaken = self.untaken.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    if self.untaken > CONSOLE_WINDOW {
                        return Err(Stop::Because("more input than may be on the way".to_owned()));
                    }
                    return Ok(ConsoleFrame::Input(bytes));
                }
                Some(Ok(frame)) => return Ok(frame),
            }
        }
    }
}

/// What came of a command.
enum Attended {
    Ended(ConsoleEnd),
    NotStarted(StartFailed),
}

fn over() -> Stop {
    Stop::Because("the job is over, and its sandbox goes with it".to_owned())
}

/// Returns when the attempt leaves its place.
async fn left(place: &mut watch::Receiver<Place>) {
    // An error means that it is gone altogether.
    let _ = place.wait_for(|place| matches!(place, Place::Over)).await;
}

/// Ends a command, and waits until it is gone.
async fn end(console: &mut dyn Console, grace: Duration) {
    let ended = async {
        console.end(grace).await?;
        while console.next().await?.is_some() {}
        Ok::<(), contract::ExecutorError>(())
    };
    if let Ok(Err(error)) = timeout(grace + KILLED, ended).await {
        tracing::debug!(%error, "a console's command can't be waited for");
    }
}

/// Why a command couldn't be started.
fn explained(failed: &StartFailed, ask: &ConsoleAsk) -> String {
    match (failed.phase, ask.command.first()) {
        (StartPhase::Exec, None) => {
            format!("there is no shell in the sandbox (tried {}); name a program that is there", SHELLS.join(", "))
        }
        _ => failed.failure.to_string(),
    }
}
