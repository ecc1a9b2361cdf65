//! What is remembered of each worker between its exchanges.
//!
//! A session is made when a worker is first heard of and filled from the store, so that a restart, or a worker that
//! comes from another server, loses nothing: which leases are live is the store's to say.
//!
//! [`held`] is one lease, [`slots`] a claim under way, [`listed`] what a report says it has, [`workspaces`] what the worker
//! holds for runs.

mod held;
mod listed;
mod slots;
mod workspaces;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use executr_api::console::{ConsoleId, ConsoleOrder};
use executr_api::{Fence, Lease, Orders, Report, RunCancel, WorkerCounters, WorkerHello, WorkspaceId};
use executr_spec::{JobId, Offers, QueueName, RunId, SpecJson, WorkerId};
use executr_store::{LeaseRecord, WorkspaceRecord};
use tokio::time::Instant;

use crate::bell::Bell;
use crate::job_token;
use crate::lock::Lock;
use crate::runs::{Contexts, may_be_of_a_run};

use self::held::{Held, Part};
pub(crate) use self::listed::Listed;
pub(crate) use self::slots::Slots;
use self::workspaces::Workspaces;

/// An order that a worker doesn't seem to have followed is repeated after this long.
const REPEAT: Duration = Duration::from_secs(2);

/// At most so many jobs are handed out at a time; a worker with more free slots comes again at once.
const HANDED_OUT: u32 = 256;
/// An answer carries about so many bytes of jobs; the rest comes with the next.
const ANSWER_BYTES: usize = 8 << 20;

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Lock<HashMap<WorkerId, Arc<Session>>>);

/// One worker's.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: WorkerId,
    /// Held while the live leases are read from the store.
    pub(crate) loading: tokio::sync::Mutex<()>,
    state: Lock<State>,
}

#[derive(Debug)]
struct State {
    hello: Option<Arc<WorkerHello>>,
    queues: Arc<[QueueName]>,
    offers: Arc<Offers>,
    draining: bool,
    /// The latest report's number.
    latest: u64,
    /// Counted up whenever `leases` changes.
    epoch: u64,
    /// Whether `leases` has to be read from the store before it can be relied on.
    stale: bool,
    leases: HashMap<Fence, Held>,
    /// Live leases of other workers that this one lists: it delivers what a dead process of its machine left behind.
    foreign: HashMap<Fence, Foreign>,
    /// Jobs asked to stop while a claim was under way, which may have brought them.
    stopping: HashMap<JobId, RunCancel>,
    /// Slots that claims on their way may fill.
    claiming: u32,
    /// The open exchange.
    bell: Option<Arc<Bell>>,
    /// When a cancel or release was last ordered.
    told: HashMap<Fence, Instant>,
    workspaces: Workspaces,
    /// Consoles that somebody waits for, and when each was last ordered.
    consoles: HashMap<ConsoleId, (ConsoleOrder, Option<Instant>)>,
    last_seen: Instant,
    counters: WorkerCounters,
    completed: u64,
    /// When it was last recorded in the store, and whether something changed since that others should know.
    recorded: Option<Instant>,
}

#[derive(Debug)]
struct Foreign {
    cancelling: bool,
    renewed: Instant,
}

/// A report that was taken in.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) bell: Arc<Bell>,
    pub(crate) queues: Arc<[QueueName]>,
    pub(crate) offers: Arc<Offers>,
    /// A later report came before: only the results of this one count.
    pub(crate) late: bool,
    /// How long the worker was not heard of; `None` when it is new here.
    pub(crate) silent: Option<Duration>,
    /// Whether it is new here, or offers something else than before.
    pub(crate) came: bool,
    /// By how much the worker's own totals grew.
    pub(crate) counted: WorkerCounters,
}

/// A session as others may see it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: WorkerId,
    pub(crate) hello: Arc<WorkerHello>,
    pub(crate) draining: bool,
    pub(crate) running: u32,
    pub(crate) current: Option<(JobId, SpecJson)>,
    pub(crate) silent: Duration,
    pub(crate) completed: u64,
    pub(crate) cache_bytes: u64,
}

impl Sessions {
    /// The worker's session, made when there is none.
    pub(crate) fn of(&self, worker: &WorkerId) -> Arc<Session> {
        let mut sessions = self.0.hold();
        if let Some(session) = sessions.get(worker) {
            return Arc::clone(session);
        }
        let session = Arc::new(Session::new(worker.clone()));
        sessions.insert(worker.clone(), Arc::clone(&session));
        session
    }

    /// The worker's session, if there is one.
    pub(crate) fn get(&self, worker: &WorkerId) -> Option<Arc<Session>> {
        self.0.hold().get(worker).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.0.hold().values().cloned().collect()
    }

    /// Forgets workers not heard of for `silence`.
    pub(crate) fn forget(&self, silence: Duration) {
        self.0.hold().retain(|_, session| {
            let state = session.state.hold();
            state.last_seen.elapsed() < silence || state.claiming > 0
        });
    }
}

impl Session {
    fn new(id: WorkerId) -> Self {
        Self {
            id,
            loading: tokio::sync::Mutex::new(()),
            state: Lock::new(State {
                hello: None,
                queues: Arc::new([]),
                offers: Arc::default(),
                draining: false,
                latest: 0,
                epoch: 0,
                stale: false,
                leases: HashMap::new(),
                foreign: HashMap::new(),
                stopping: HashMap::new(),
                claiming: 0,
                bell: None,
                told: HashMap::new(),
                workspaces: Workspaces::default(),
                consoles: HashMap::new(),
                last_seen: Instant::now(),
                counters: WorkerCounters::default(),
                completed: 0,
                recorded: None,
            }),
        }
    }

    /// Takes in what a report says of the worker itself; the exchange before it returns.
    pub(crate) fn open(&self, report: &Report) -> Opened {
        let mut state = self.state.hold();
        let new = state.hello.is_none();
        let silent = (!new).then(|| state.last_seen.elapsed());
        let late = !new && report.sequence < state.latest;
        state.last_seen = Instant::now();
        let bell = Arc::new(Bell::default());
        let came = !late && state.hello.as_deref() != Some(&report.worker);
        if !late {
            // A number left out is a report that went elsewhere, or nowhere: what came of it only the store knows.
            let first = new && report.sequence <= 1 && report.held.is_empty() && report.finished.is_empty();
            state.stale |= if new { !first } else { report.sequence > state.latest + 1 };
            state.latest = report.sequence;
            if came {
                state.hello = Some(Arc::new(report.worker.clone()));
                state.queues = report.worker.queues.iter().map(|queue| queue.queue.clone()).collect();
                state.offers = Arc::new(report.worker.offers.clone());
                state.recorded = None;
            }
            if state.draining != report.draining {
                state.draining = report.draining;
                state.recorded = None;
            }
            if let Some(earlier) = state.bell.replace(Arc::clone(&bell)) {
                earlier.supersede();
            }
            state.told.retain(|fence, _| report.held.contains(fence));
            state.foreign.retain(|fence, _| report.held.contains(fence));
        }
        // A worker that was counted elsewhere before starts here from where it stands.
        let counted = if late || (new && report.sequence > 1) {
            WorkerCounters::default()
        } else {
            growth(&state.counters, &report.counters)
        };
        if !late {
            state.counters = report.counters;
        }
        Opened {
            bell,
            queues: Arc::clone(&state.queues),
            offers: Arc::clone(&state.offers),
            late,
            silent,
            came,
            counted,
        }
    }

    /// The exchange with this bell is over.
    pub(crate) fn close(&self, bell: &Arc<Bell>) {
        let mut state = self.state.hold();
        state.last_seen = Instant::now();
        if state.bell.as_ref().is_some_and(|open| Arc::ptr_eq(open, bell)) {
            state.bell = None;
        }
    }

    /// Whether an exchange is open here.
    pub(crate) fn is_open(&self) -> bool {
        self.state.hold().bell.is_some()
    }

    /// Rings the open exchange.
    pub(crate) fn ring(&self) {
        if let Some(bell) = &self.state.hold().bell {
            bell.ring();
        }
    }

    /// The number to give back to [`adopt`](Self::adopt); `None` when the leases known here can be relied on.
    pub(crate) fn stale(&self) -> Option<u64> {
        let state = self.state.hold();
        state.stale.then_some(state.epoch)
    }

    /// Takes over the live leases that were read from the store at `epoch`. False: they changed meanwhile, read again.
    pub(crate) fn adopt(
        &self,
        epoch: u64,
        leases: Vec<LeaseRecord>,
        mut contexts: Contexts,
        now: Instant,
        age: impl Fn(&LeaseRecord) -> Duration,
    ) -> bool {
        let mut state = self.state.hold();
        if state.epoch != epoch {
            return false;
        }
        // What the store doesn't keep.
        let at_once: Vec<Fence> =
            state.leases.iter().filter(|(_, held)| held.at_once).map(|(fence, _)| *fence).collect();
        state.leases = leases
            .into_iter()
            .map(|lease| {
                let renewed = now.checked_sub(age(&lease)).unwrap_or(now);
                let part = match contexts.remove(&lease.fence.job) {
                    Some(context) => Part::Known(context),
                    None if may_be_of_a_run(&lease.spec) => Part::Unread,
                    None => Part::None,
                };
                let mut held = Held::new(lease.spec, part, lease.cancelling, renewed);
                held.at_once = at_once.contains(&lease.fence);
                (lease.fence, held)
            })
            .collect();
        let state = &mut *state;
        state.foreign.retain(|fence, _| !state.leases.contains_key(fence));
        state.stale = false;
        true
    }

    /// Reserves slots that are free when what the report lists as gone is gone.
    pub(crate) fn reserve(self: &Arc<Self>, listed: &Listed) -> Option<Slots> {
        let mut state = self.state.hold();
        let count = state.free(listed).min(HANDED_OUT);
        state.claiming += count;
        (count > 0).then(|| Slots { session: Arc::clone(self), count })
    }

    /// How many slots are free.
    pub(crate) fn free(&self, listed: &Listed) -> u32 {
        self.state.hold().free(listed)
    }

    /// Which leases have to be renewed: of those listed the ones unknown here, and of those known the exclusive ones and
    /// the ones renewed longer than `age` ago, also when they have yet to be told.
    pub(crate) fn due(&self, listed: &Listed, age: Duration) -> Vec<Fence> {
        let state = self.state.hold();
        let own = state.leases.iter().filter(|(fence, held)| !listed.gone.contains(*fence) && held.is_due(age));
        let unknown = listed.held.iter().filter(|fence| {
            let foreign = state.foreign.get(*fence);
            !state.leases.contains_key(*fence) && foreign.is_none_or(|foreign| foreign.renewed.elapsed() >= age)
        });
        own.map(|(fence, _)| *fence).chain(unknown.copied()).collect()
    }

    /// The lease was renewed, so it is live. When it is not known here, it was handed out to this worker elsewhere, or to
    /// another: then it stays with this one as long as it lists it, and the next look at the store tells them apart.
    pub(crate) fn renewed(&self, fence: &Fence, cancelling: bool) {
        let mut state = self.state.hold();
        let renewed = Instant::now();
        if let Some(held) = state.leases.get_mut(fence) {
            held.renewed = renewed;
            held.cancelling |= cancelling;
        } else if state.foreign.insert(*fence, Foreign { cancelling, renewed }).is_none() {
            state.stale = true;
        }
    }

    /// Something is not as it is known here: read the leases again.
    fn distrust(&self) {
        self.state.hold().stale = true;
    }

    /// Whether one of these leases is of a job that belongs to a run.
    pub(crate) fn any_of_runs<'a>(&self, mut fences: impl Iterator<Item = &'a Fence>) -> bool {
        let state = self.state.hold();
        fences.any(|fence| state.leases.get(fence).is_some_and(|held| !matches!(held.part, Part::None)))
    }

    /// The lease is over: its result was taken, it was given back, or lost. True when it was known.
    pub(crate) fn ended(&self, fence: &Fence) -> bool {
        let mut state = self.state.hold();
        state.epoch += 1;
        state.foreign.remove(fence);
        state.leases.remove(fence).is_some()
    }

    /// The lease was taken away: the worker is told.
    pub(crate) fn revoked(&self, fence: &Fence) {
        self.ended(fence);
        self.ring();
    }

    /// One of its jobs was asked to stop: the worker is told.
    pub(crate) fn cancelling(&self, job: JobId, how: RunCancel) {
        let mut state = self.state.hold();
        let state = &mut *state;
        let mut found = false;
        for (fence, held) in &mut state.leases {
            if fence.job == job {
                held.cancelling = true;
                if how == RunCancel::AtOnce {
                    held.at_once = true;
                    // Told again, though it was told to stop before.
                    state.told.remove(fence);
                }
                found = true;
            }
        }
        // A claim that is under way may have brought it; its answer comes after this.
        if !found && state.claiming > 0 {
            let known = state.stopping.entry(job).or_insert(how);
            *known = how.max(*known);
        }
        if found && let Some(bell) = &state.bell {
            bell.ring();
        }
    }

    /// For how long nothing was heard of it; `None` when it has never called here.
    pub(crate) fn silent(&self) -> Option<Duration> {
        let state = self.state.hold();
        state.hello.as_ref()?;
        Some(if state.bell.is_some() { Duration::ZERO } else { state.last_seen.elapsed() })
    }

    /// Somebody wants a console in a job of its: the worker is told.
    pub(crate) fn console(&self, order: ConsoleOrder) {
        self.state.hold().consoles.insert(order.console, (order, None));
        self.ring();
    }

    /// Nobody waits for this console any more.
    pub(crate) fn console_is_over(&self, console: ConsoleId) {
        self.state.hold().consoles.remove(&console);
    }

    /// A workspace of its is needed no more: the worker is told.
    pub(crate) fn released(&self, workspace: &WorkspaceId) {
        self.state.hold().workspaces.release(workspace);
        self.ring();
    }

    /// The worker has cleaned workspaces up.
    pub(crate) fn cleaned(&self, workspaces: &[WorkspaceId]) {
        let mut state = self.state.hold();
        for workspace in workspaces {
            state.workspaces.cleaned(workspace);
        }
    }

    /// Something happened elsewhere in this run, or in any: its workspaces may have been released.
    pub(crate) fn doubt_workspaces(&self, run: Option<RunId>) {
        self.state.hold().workspaces.doubt(run);
    }

    /// Whether the store has to be asked about its workspaces. Says so once.
    pub(crate) fn take_doubt(&self) -> bool {
        self.state.hold().workspaces.take_doubt()
    }

    /// What the store knows of its workspaces.
    pub(crate) fn adopt_workspaces(&self, workspaces: Vec<WorkspaceRecord>) {
        self.state.hold().workspaces.adopt(workspaces);
    }

    /// An attempt of its ended well.
    pub(crate) fn completed(&self) {
        self.state.hold().completed += 1;
    }

    /// What the worker should know beyond what its report lists.
    pub(crate) fn orders(&self, listed: &Listed) -> Orders {
        let mut state = self.state.hold();
        let state = &mut *state;
        let mut orders = Orders::default();
        let now = Instant::now();
        let told = &mut state.told;
        let mut tell = |fence: Fence| {
            let again = told.get(&fence).is_none_or(|last| now.duration_since(*last) >= REPEAT);
            if again {
                told.insert(fence, now);
            }
            again
        };
        let mut unread = false;
        for (fence, held) in &state.leases {
            if listed.gone.contains(fence) {
                continue;
            }
            let has = listed.held.contains(fence);
            if !has {
                let run = match &held.part {
                    Part::None => None,
                    Part::Known(run) => Some(run.clone()),
                    Part::Unread => {
                        // The worker had it and has it no more, as it seems: its part is read with the next look.
                        unread = true;
                        continue;
                    }
                };
                let token = job_token::write(fence);
                orders.leases.push(Lease { fence: *fence, spec: held.spec.clone(), token, run });
            }
            if held.cancelling && (tell(*fence) || !has) {
                orders.cancels.push(*fence);
                orders.at_once.extend(held.at_once.then_some(*fence));
            }
        }
        for fence in listed.held.iter().filter(|fence| !state.leases.contains_key(fence)) {
            match state.foreign.get(fence) {
                Some(foreign) if foreign.cancelling && tell(*fence) => orders.cancels.push(*fence),
                Some(_) => {}
                None if !state.stale && tell(*fence) => orders.releases.push(*fence),
                None => {}
            }
        }
        // The oldest first, as a user who watches a single slot expects.
        orders.leases.sort_by_key(|lease| lease.fence.job);
        let mut bytes = 0;
        orders.leases.retain(|lease| {
            let fits = bytes < ANSWER_BYTES;
            bytes += state.leases.get(&lease.fence).map_or(0, Held::bytes);
            fits
        });
        orders.workspaces = state.workspaces.overdue(now, REPEAT);
        for (order, told) in state.consoles.values_mut() {
            if told.is_none_or(|last| now.duration_since(last) >= REPEAT) {
                *told = Some(now);
                orders.consoles.push(order.clone());
            }
        }
        if unread {
            state.stale = true;
            if let Some(bell) = &state.bell {
                bell.ring();
            }
        }
        orders
    }

    /// How it looks from outside; `None` before its first report.
    pub(crate) fn seen(&self) -> Option<Seen> {
        let state = self.state.hold();
        Some(Seen {
            id: self.id.clone(),
            hello: Arc::clone(state.hello.as_ref()?),
            draining: state.draining,
            running: u32::try_from(state.leases.len()).unwrap_or(u32::MAX),
            current: state.leases.iter().min_by_key(|(fence, _)| fence.job).map(|(f, held)| (f.job, held.spec.clone())),
            silent: if state.bell.is_some() { Duration::ZERO } else { state.last_seen.elapsed() },
            completed: state.completed,
            cache_bytes: state.counters.cache_bytes,
        })
    }

    /// Whether what is known of it should be recorded again: it was heard of, and was not recorded for `age` or has
    /// changed since. Notes that it is, and hands out the attempts that ended well since the last time.
    pub(crate) fn record(&self, age: Duration) -> Option<u64> {
        let mut state = self.state.hold();
        let heard = state.bell.is_some() || state.recorded.is_none_or(|recorded| state.last_seen > recorded);
        let due = state.recorded.is_none_or(|recorded| recorded.elapsed() >= age);
        if !(heard && due) && state.completed == 0 {
            return None;
        }
        state.hello.as_ref()?;
        state.recorded = Some(Instant::now());
        Some(std::mem::take(&mut state.completed))
    }

    /// Takes back [`record`](Self::record): the store could not be written.
    pub(crate) fn unrecord(&self, completed: u64) {
        let mut state = self.state.hold();
        state.recorded = None;
        state.completed += completed;
    }
}

impl State {
    fn free(&self, listed: &Listed) -> u32 {
        let Some(hello) = &self.hello else { return 0 };
        if self.draining || self.stale {
            return 0;
        }
        let outstanding = self.leases.keys().filter(|fence| !listed.gone.contains(fence)).count();
        hello.slots.saturating_sub(u32::try_from(outstanding).unwrap_or(u32::MAX)).saturating_sub(self.claiming)
    }
}

/// By how much totals grew. A worker's totals start at 0 with its process, whose id is new.
fn growth(before: &WorkerCounters, now: &WorkerCounters) -> WorkerCounters {
    WorkerCounters {
        cache_hits: now.cache_hits.saturating_sub(before.cache_hits),
        cache_misses: now.cache_misses.saturating_sub(before.cache_misses),
        cache_bytes: 0,
        downloads: now.downloads.saturating_sub(before.downloads),
        download_micros: now.download_micros.saturating_sub(before.download_micros),
    }
}
