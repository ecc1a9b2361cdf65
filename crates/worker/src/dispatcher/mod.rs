//! The one task that owns a worker's state. Slots, exchanges and tails only tell it what happened.
//!
//! - [`leases`]: what it holds, and what it lately held;
//! - [`exchanges`]: what it tells the coordinator, and when;
//! - [`orders`]: what it does on the coordinator's word;
//! - [`tails`]: output that couldn't be appended before its attempt ended;
//! - [`workspaces`]: places of runs that are over, being cleaned up.

mod exchanges;
mod leases;
mod orders;
mod tails;
mod workspaces;

use std::sync::Arc;
use std::time::Duration;

use executr_api::{ApiError, ErrorCode, Fence, Lease, Outcome, Report, RetryDelay, WorkerCounters, WorkerHello};
use executr_engine::{Engine, StopReason};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::options::WorkerOptions;
use crate::outbox::Outbox;
use crate::shutdown::{Shutdown, Stage};
use crate::slot::{self, Assignment, SlotReport};
use crate::worker::{WorkerError, WorkerSummary};
use exchanges::{Answered, Brought, Exchanges};
use leases::Leases;
use tails::{TailStep, Tails};
use workspaces::Cleaning;

/// How long an idle worker's exchange may stay open. The coordinator chooses less where it wants.
const IDLE_WAIT: Duration = Duration::from_secs(30);
/// How long a lease lasts as long as the coordinator hasn't said.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);

/// A worker that is busy all the same brings news at most this often: an exchange and its commit cost as much as a small job.
const PACE: Duration = Duration::from_millis(4);
/// Busy is who runs this many jobs, and more than it has slots free.
const BUSY: usize = 8;

/// A worker's state.
pub(crate) struct Dispatcher {
    options: WorkerOptions,
    hello: WorkerHello,
    engine: Arc<Engine>,
    slots: Vec<mpsc::UnboundedSender<Assignment>>,
    idle: Vec<usize>,
    reports: mpsc::UnboundedReceiver<SlotReport>,
    leases: Leases,
    outbox: Outbox,
    tails: Tails,
    cleaning: Cleaning,
    /// Leases to give back unstarted.
    returned: Vec<Fence>,
    exchanges: Exchanges,
    delay: RetryDelay,
    /// No exchange before this.
    retry_at: Option<Instant>,
    /// When news was last sent.
    news_sent: Option<Instant>,
    /// When the coordinator was last heard.
    heard: Instant,
    /// It has been said that the coordinator can't be heard.
    deaf: bool,
    /// Whether the coordinator has ever answered.
    accepted: bool,
    lease: Duration,
    started: Instant,
    stage: Stage,
    /// The coordinator knows that this worker drains.
    drain_told: bool,
    summary: WorkerSummary,
}

/// What woke the dispatcher.
enum Wake {
    Slot(Box<SlotReport>),
    Answered(Box<Answered>, Vec<Fence>),
    Tail(TailStep),
    Cleaned,
    Stage(Stage),
    Time,
}

impl Dispatcher {
    pub(crate) fn new(options: WorkerOptions, hello: WorkerHello, engine: Arc<Engine>, outbox: Outbox) -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        let slots: Vec<_> =
            (0..hello.slots as usize).map(|slot| slot::start(slot, Arc::clone(&engine), sender.clone())).collect();
        let now = Instant::now();
        Self {
            idle: (0..slots.len()).rev().collect(),
            slots,
            reports,
            options,
            hello,
            engine,
            leases: Leases::default(),
            outbox,
            tails: Tails::default(),
            cleaning: Cleaning::default(),
            returned: Vec::new(),
            exchanges: Exchanges::default(),
            delay: RetryDelay::default(),
            retry_at: None,
            news_sent: None,
            heard: now,
            deaf: false,
            accepted: false,
            lease: DEFAULT_LEASE,
            started: now,
            stage: Stage::Run,
            drain_told: false,
            summary: WorkerSummary::default(),
        }
    }

    pub(crate) async fn run(mut self, mut shutdown: Shutdown) -> Result<WorkerSummary, WorkerError> {
        for left in self.outbox.take_left_tails() {
            self.tails.deliver(&self.engine.api, left);
        }
        loop {
            self.look_at_the_time();
            if self.is_done() {
                break;
            }
            self.exchange();
            let wake = self.wake(&mut shutdown).await;
            self.handle(wake)?;
            // What else happened meanwhile goes with the same report.
            while let Ok(report) = self.reports.try_recv() {
                self.finished(report);
            }
        }
        while self.tails.is_saving() {
            let step = self.tails.next().await;
            self.tail_went_on(step);
        }
        self.outbox.save();
        self.summary.undelivered = self.outbox.len() as u64;
        Ok(self.summary)
    }

    async fn wake(&mut self, shutdown: &mut Shutdown) -> Wake {
        let alarm = self.alarm();
        tokio::select! {
            Some(report) = self.reports.recv() => Wake::Slot(Box::new(report)),
            (answered, held) = self.exchanges.answered() => Wake::Answered(Box::new(answered), held),
            step = self.tails.next() => Wake::Tail(step),
            () = self.cleaning.next() => Wake::Cleaned,
            stage = shutdown.next() => Wake::Stage(stage),
            () = tokio::time::sleep_until(alarm) => Wake::Time,
        }
    }

    fn handle(&mut self, wake: Wake) -> Result<(), WorkerError> {
        match wake {
            Wake::Slot(report) => self.finished(*report),
            Wake::Answered(answered, held) => self.answered(*answered, &held)?,
            Wake::Tail(step) => self.tail_went_on(step),
            Wake::Stage(stage) => {
                if stage >= Stage::Drain {
                    self.drain("it was told to stop");
                }
                if stage == Stage::EndJobs {
                    self.stage = Stage::EndJobs;
                    self.leases.end_all();
                }
            }
            Wake::Cleaned | Wake::Time => {}
        }
        Ok(())
    }

    /// When something is to be done though nothing happens.
    fn alarm(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3_600);
        let times = [
            self.retry_at,
            self.held_back(),
            self.leases.next_expiry(self.renewal_limit()),
            (!self.deaf || self.stage == Stage::Drain).then(|| self.heard + self.options.network_timeout),
            self.options.max_active_time.filter(|_| self.stage == Stage::Run).map(|limit| self.started + limit),
        ];
        let now = Instant::now();
        times.into_iter().flatten().filter(|time| *time > now).min().unwrap_or(far)
    }

    fn look_at_the_time(&mut self) {
        let now = Instant::now();
        // What is left of the lease is enough to end in: half for SIGTERM, half for SIGKILL and its effect.
        self.leases.expire(self.renewal_limit(), self.options.kill_grace.min(self.lease / 8), now);
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        if !self.deaf && now >= self.heard + self.options.network_timeout && self.delay.is_failing() {
            self.deaf = true;
            tracing::warn!(
                since = ?(now - self.heard), running = self.leases.count(),
                "the server can't be reached: no new jobs until it is; running jobs go on, and their results are kept"
            );
        }
        if self.options.max_active_time.is_some_and(|limit| now >= self.started + limit) {
            self.drain("its time is over");
        }
    }

    /// After so long without renewal an exclusive job is ended.
    fn renewal_limit(&self) -> Duration {
        self.lease * 3 / 4
    }

    fn drain(&mut self, why: &str) {
        if self.stage == Stage::Run {
            tracing::info!(running = self.leases.count(), "no new jobs: {why}");
            self.stage = Stage::Drain;
        }
    }

    fn is_done(&self) -> bool {
        if self.stage == Stage::Run || self.leases.count() > 0 || self.cleaning.is_under_way() {
            return false;
        }
        let told = self.drain_told && self.exchanges.is_empty() && self.returned.is_empty();
        if told && self.outbox.is_empty() {
            return true;
        }
        // Nobody to tell. What there is to tell lies on disk.
        let in_vain = self.delay.is_failing() && !self.exchanges.brings_news();
        in_vain
            && (self.outbox.is_empty()
                || self.stage == Stage::EndJobs
                || self.heard.elapsed() >= self.options.network_timeout)
    }

    /// Until when results gather though they could be sent.
    fn held_back(&self) -> Option<Instant> {
        let running = self.slots.len() - self.idle.len();
        let busy = running >= BUSY && running > self.idle.len();
        let urgent = self.stage != Stage::Run || !self.returned.is_empty();
        let until = self.news_sent.filter(|_| busy && !urgent)? + PACE;
        (until > Instant::now()).then_some(until)
    }

    /// Opens an exchange when there is a reason to.
    fn exchange(&mut self) {
        if self.retry_at.is_some() {
            return;
        }
        let draining = self.stage != Stage::Run;
        let has_news = self.outbox.has_ready()
            || !self.returned.is_empty()
            || self.cleaning.has_news()
            || draining && !self.drain_told;
        if self.exchanges.is_listening() && (!has_news || self.exchanges.brings_news()) {
            return;
        }
        if self.held_back().is_some() {
            return;
        }
        if has_news {
            self.news_sent = Some(Instant::now());
        }
        let suspect = self.outbox.suspect();
        let finished = self.outbox.report();
        let returned = std::mem::take(&mut self.returned);
        let mut held: Vec<Fence> = self.leases.held().collect();
        held.extend(self.outbox.held());
        let brought = Brought {
            results: finished.iter().map(|result| result.fence).collect(),
            returned: returned.clone(),
            cleaned: self.cleaning.report(),
            suspect,
            draining,
            is_news: has_news,
        };
        // That it drains is news: while it is on its way results wait for the next, so it must not stay open.
        let wait = match (draining && (held.is_empty() || !self.drain_told), held.is_empty()) {
            // Nothing answers these at once by itself.
            _ if suspect.is_some() || !brought.cleaned.is_empty() => Duration::ZERO,
            (true, _) => Duration::ZERO,
            (false, true) => IDLE_WAIT.max(self.options.heartbeat_interval),
            (false, false) => self.options.heartbeat_interval,
        };
        let mut counters = WorkerCounters::default();
        self.engine.cache.count(&mut counters);
        let mut worker = self.hello.clone();
        worker.slots = self.offered_slots();
        let report = Report {
            worker,
            sequence: self.exchanges.next_sequence(),
            held,
            finished,
            returned,
            cleaned: brought.cleaned.clone(),
            draining,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            counters,
        };
        self.exchanges.open(&self.engine.api, report, brought, self.options.exchange_patience);
    }

    /// How many jobs it wants to run at a time: fewer than it could when it may only start a few more.
    fn offered_slots(&self) -> u32 {
        let Some(limit) = self.options.max_total_jobs else { return self.hello.slots };
        let left = limit.saturating_sub(self.summary.started);
        let most = (self.leases.count() as u64).saturating_add(left);
        self.hello.slots.min(u32::try_from(most).unwrap_or(u32::MAX))
    }

    fn start(&mut self, lease: Lease) {
        if self.leases.is_known(&lease.fence) || self.outbox.contains(&lease.fence) {
            return;
        }
        let may_start =
            self.stage == Stage::Run && self.options.max_total_jobs.is_none_or(|limit| self.summary.started < limit);
        let Some(slot) = self.idle.pop_if(|_| may_start) else {
            self.leases.remember(&lease.fence);
            self.returned.push(lease.fence);
            return;
        };
        let (stopper, stop) = executr_engine::Stopper::new();
        // A word that can only stand there when the job is exclusive spares reading every job twice.
        let exclusive =
            lease.spec.as_str().contains("\"exclusive\"") && lease.spec.read().is_ok_and(|spec| spec.exclusive);
        self.leases.start(lease.fence, stopper, exclusive, Instant::now());
        self.summary.started += 1;
        tracing::debug!(job = %lease.fence.job, attempt = lease.fence.attempt, slot, "started");
        if self.slots[slot].send(Assignment { lease, stop }).is_err() {
            tracing::error!(slot, "a slot is gone; its lease will run out");
        }
        if self.options.max_total_jobs.is_some_and(|limit| self.summary.started >= limit) {
            self.drain("it has taken as many jobs as it may");
        }
    }

    fn finished(&mut self, report: SlotReport) {
        let SlotReport { slot, finished, token } = report;
        self.idle.push(slot);
        let result = finished.result;
        // After an order of ours its lease runs out instead, and the job is handed out again.
        let told_to_end = finished.stopped.is_some_and(|reason| reason != StopReason::Cancelled);
        let wanted = self.leases.end(&result.fence) && !told_to_end;
        tracing::debug!(job = %result.fence.job, outcome = ?result.outcome, exit_code = result.exit_code, "ended");
        match result.outcome {
            Outcome::Succeeded | Outcome::Skipped => self.summary.succeeded += 1,
            Outcome::Failed => self.summary.failed += 1,
            Outcome::Cancelled => self.summary.cancelled += 1,
        }
        if !wanted {
            return;
        }
        let fence = result.fence;
        match finished.tail {
            None => self.outbox.put(result),
            Some(tail) => {
                if let Some(path) = self.outbox.put_before_output(result, token.clone()) {
                    self.tails.save(fence, token, tail, path);
                }
            }
        }
        if self.delay.is_failing() {
            self.outbox.save();
        }
    }

    /// An exchange failed: nothing is known to have happened.
    fn exchange_failed(&mut self, error: ApiError, brought: Brought) -> Result<(), WorkerError> {
        let refusal = matches!(
            error.code,
            ErrorCode::Unauthorized | ErrorCode::Forbidden | ErrorCode::UpgradeRequired | ErrorCode::BadRequest
        );
        let may_be_a_results_fault = matches!(error.code, ErrorCode::BadRequest | ErrorCode::TooLarge)
            && (brought.suspect.is_some() || !brought.results.is_empty());
        self.outbox.report_again(&brought.results);
        self.returned.extend(brought.returned);
        self.cleaning.report_again(&brought.cleaned);
        self.outbox.save();
        if may_be_a_results_fault && self.outbox.report_was_refused(&brought.results) {
            tracing::warn!(%error, results = brought.results.len(), "the server refuses a report; finding out why");
            return Ok(());
        }
        if refusal && !self.accepted {
            return Err(WorkerError::Refused(error));
        }
        let delay = self.delay.next_delay();
        self.retry_at = Some(Instant::now() + delay);
        if refusal {
            tracing::warn!(%error, "the server refuses this executor");
        } else {
            tracing::debug!(%error, ?delay, "an exchange failed");
        }
        Ok(())
    }
}
