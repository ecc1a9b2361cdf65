//! Random commands, carried out by the model and by the store under test: same answers, same state.
//!
//! What the two can't have in common is written alike before it is compared: a lease's random id becomes its job and
//! attempt, a time becomes its distance from the start, rounded so that what a real clock goes on by disappears.
//! The clock moves by an odd amount with each command, so that times of different commands never fall together.

mod runs;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use executr_api::{AttemptResult, Fence, JobQuery, Outcome};
use executr_spec::{Digest, JobId, Offers, Priority, QueueName, RunId, Timestamp};
use executr_store::model::ModelStore;
use executr_store::{Claim, Finish, ManualClock, NewJob, Renewal, Return, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use uuid::Uuid;

use self::runs::{RunCommand, artifact, run_command};
use crate::suite::Harness;
use crate::suite::output::merged;
use crate::suite::stage::{chunk, constant, job, labelled, offering, offers, result, wish};

/// In which leases, waits and delays are counted.
const TICK: Duration = Duration::from_secs(1_000_000);
/// By how much each command is later than the one before; no sum of ticks and steps meets another.
const STEP: Duration = Duration::from_secs(1_001_000);
/// To which times are rounded.
const GRAIN: i64 = 1_000_000_000;

/// A harness whose store can be closed and opened again in the middle.
pub(crate) trait Reopen: Harness {
    /// Does so, if it means anything for such a store. Nobody else holds it meanwhile.
    fn reopen(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Something to do. Numbers pick from what there is at that time.
#[derive(Clone, Debug)]
enum Command {
    Submit(Vec<Wanted>),
    Claim(Vec<Wish>),
    Finish(Vec<Ended>),
    Renew(Vec<(usize, u32)>),
    GiveBack(Vec<usize>),
    Cancel {
        jobs: Vec<usize>,
        pending_only: bool,
    },
    Advance {
        may_reclaim: bool,
        limit: u32,
    },
    Append {
        lease: usize,
        offset: u64,
        length: usize,
    },
    Delete {
        ticks: u32,
        limit: u32,
    },
    Pass(u32),
    /// For a store that keeps runs.
    Run(RunCommand),
    /// The store is closed and opened again, if it can be.
    Reopen,
}

#[derive(Clone, Debug)]
struct Wanted {
    tenant: u8,
    queue: u8,
    priority: usize,
    label: u8,
    key: Option<(u8, u32)>,
    later: Option<u32>,
    retries: u32,
    wait: u32,
    once: Option<u8>,
}

#[derive(Clone, Debug)]
struct Wish {
    worker: u8,
    limit: u32,
    queues: Vec<u8>,
    label: u8,
    lease: u32,
}

#[derive(Clone, Debug)]
struct Ended {
    lease: usize,
    outcome: Outcome,
    retryable: bool,
    fails_run: bool,
    output: Option<(u64, usize)>,
    made: Vec<u8>,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let place = (0..3_u8, 0..2_u8, 0..3_usize, 0..3_u8);
    let rules = (proptest::option::weighted(0.4, (0..2_u8, 1..4_u32)), proptest::option::weighted(0.2, 0..4_u32));
    let again = (0..3_u32, 0..3_u32, proptest::option::weighted(0.2, 0..4_u8));
    (place, rules, again).prop_map(|((tenant, queue, priority, label), (key, later), (retries, wait, once))| Wanted {
        tenant,
        queue,
        priority,
        label,
        key,
        later,
        retries,
        wait,
        once,
    })
}

fn claim() -> impl Strategy<Value = Wish> {
    let queues = prop_oneof![Just(vec![0, 1]), Just(vec![1, 0]), Just(vec![0]), Just(vec![1])];
    (0..3_u8, 0..5_u32, queues, 0..3_u8, 1..4_u32).prop_map(|(worker, limit, queues, label, lease)| Wish {
        worker,
        limit,
        queues,
        label,
        lease,
    })
}

fn ended() -> impl Strategy<Value = Ended> {
    let outcome = prop_oneof![
        5 => Just(Outcome::Succeeded),
        4 => Just(Outcome::Failed),
        1 => Just(Outcome::Cancelled),
        1 => Just(Outcome::Skipped)
    ];
    let output = proptest::option::of((0..30_u64, 0..20_usize));
    let made = proptest::collection::vec(0..3_u8, 0..3);
    let rules = (proptest::bool::weighted(0.8), proptest::bool::weighted(0.1));
    (any::<usize>(), outcome, rules, output, made).prop_map(|(lease, outcome, (retryable, fails_run), output, made)| {
        Ended { lease, outcome, retryable, fails_run, output, made }
    })
}

fn command() -> impl Strategy<Value = Command> {
    use proptest::collection::vec;
    prop_oneof![
        6 => vec(wanted(), 1..5).prop_map(Command::Submit),
        8 => vec(claim(), 1..3).prop_map(Command::Claim),
        7 => vec(ended(), 1..4).prop_map(Command::Finish),
        2 => vec((any::<usize>(), 1..4_u32), 1..4).prop_map(Command::Renew),
        2 => vec(any::<usize>(), 1..3).prop_map(Command::GiveBack),
        3 => (vec(any::<usize>(), 1..3), any::<bool>())
            .prop_map(|(jobs, pending_only)| Command::Cancel { jobs, pending_only }),
        6 => (proptest::bool::weighted(0.8), 1..6_u32)
            .prop_map(|(may_reclaim, limit)| Command::Advance { may_reclaim, limit }),
        3 => (any::<usize>(), 0..20_u64, 0..9_000_usize)
            .prop_map(|(lease, offset, length)| Command::Append { lease, offset, length }),
        // None or all: which of those that ended in one command goes first is nobody's promise.
        1 => (0..4_u32, prop_oneof![1 => Just(0), 4 => Just(1_000)])
            .prop_map(|(ticks, limit)| Command::Delete { ticks, limit }),
        3 => (1..4_u32).prop_map(Command::Pass),
        8 => run_command().prop_map(Command::Run),
        1 => Just(Command::Reopen),
    ]
}

/// One of the two stores, and what was done with it.
struct Side {
    store: Arc<dyn Store>,
    origin: Timestamp,
    elapsed: Duration,
    jobs: Vec<JobId>,
    /// Every lease ever handed out.
    fences: Vec<Fence>,
    runs: Vec<RunId>,
}

impl Side {
    async fn new(store: Arc<dyn Store>) -> Self {
        let origin = store.now().await.expect("the time");
        Self { store, origin, elapsed: Duration::ZERO, jobs: vec![], fences: vec![], runs: vec![] }
    }

    fn now(&self) -> Timestamp {
        self.origin.plus(self.elapsed)
    }

    /// Some lease that was handed out once.
    fn lease(&self, number: usize) -> Option<Fence> {
        self.fences.get(number.checked_rem(self.fences.len())?).copied()
    }

    fn new_job(&mut self, wanted: &Wanted) -> NewJob {
        let base = if wanted.label == 0 { job() } else { labelled(&wanted.label.to_string()) };
        let id = JobId(Uuid::from_u128(self.jobs.len() as u128 + 1));
        self.jobs.push(id);
        NewJob {
            id,
            tenant: format!("tenant-{}", wanted.tenant).parse().expect("a tenant"),
            queue: queue(wanted.queue),
            priority: Priority::ALL[wanted.priority],
            run_at: wanted.later.map(|ticks| self.now().plus(TICK * ticks)),
            max_retries: wanted.retries,
            backoff: constant(TICK.as_secs() * u64::from(wanted.wait)),
            idempotency_key: wanted.once.map(|once| once.to_string()),
            concurrency: wanted.key.map(|(key, limit)| (key.to_string(), limit)),
            blobs: if wanted.once.is_some() { vec![Digest::of(b"a blob")] } else { vec![] },
            ..base
        }
    }

    /// Does it and says what the answer was.
    async fn carry_out(&mut self, command: &Command) -> String {
        let store = self.store.clone();
        match command {
            Command::Submit(wanted) => {
                let jobs = wanted.iter().map(|wanted| self.new_job(wanted)).collect();
                self.plain(&store.submit(jobs).await.expect("submitted"))
            }
            Command::Claim(wishes) => {
                let answers = store.claim(wishes.iter().map(Wish::claim).collect()).await.expect("claimed");
                self.fences.extend(answers.iter().flat_map(|answer| answer.leases.iter().map(|lease| lease.fence)));
                self.plain(&answers)
            }
            Command::Finish(ended) => {
                let results = ended.iter().filter_map(|ended| Some(ended.finish(self.lease(ended.lease)?))).collect();
                self.plain(&store.finish(results).await.expect("finished"))
            }
            Command::Renew(renewals) => {
                let renewals = renewals
                    .iter()
                    .filter_map(|(lease, ticks)| Some(Renewal { fence: self.lease(*lease)?, lease: TICK * *ticks }))
                    .collect();
                self.plain(&store.renew(renewals).await.expect("renewed"))
            }
            Command::GiveBack(leases) => {
                let returns = leases.iter().filter_map(|lease| Some(Return { fence: self.lease(*lease)? })).collect();
                self.plain(&store.give_back(returns).await.expect("given back"))
            }
            Command::Cancel { jobs, pending_only } => {
                // One more than there are: a job that doesn't exist.
                let id = |number: &usize| JobId(Uuid::from_u128((number % (self.jobs.len() + 1)) as u128 + 1));
                let jobs = jobs.iter().map(id).collect();
                self.plain(&store.cancel(jobs, *pending_only, "not wanted").await.expect("cancelled"))
            }
            Command::Advance { may_reclaim, limit } => {
                self.plain(&store.advance(*may_reclaim, *limit).await.expect("advanced"))
            }
            Command::Append { lease, offset, length } => {
                let Some(fence) = self.lease(*lease) else { return String::new() };
                let bytes = vec![b'a' + (fence.attempt % 26) as u8; *length];
                self.plain(&store.append_output(&fence, chunk(*offset, &bytes)).await.expect("appended"))
            }
            Command::Delete { ticks, limit } => {
                let before = self.now().minus(TICK * *ticks);
                self.plain(&store.delete_final(before, *limit).await.expect("deleted"))
            }
            Command::Pass(_) | Command::Reopen => String::new(),
            Command::Run(command) => self.carry_out_in_runs(command).await,
        }
    }

    /// What can be seen in lists.
    async fn overview(&self) -> String {
        let mut ready = BTreeMap::new();
        for number in 0..2 {
            let classes = self.store.classes(&queue(number)).await.expect("classes");
            ready.insert(number, classes.into_iter().filter(|(_, ready)| *ready).collect::<Vec<_>>());
        }
        let jobs = self.store.jobs(&JobQuery::default()).await.expect("listed");
        self.plain(&(jobs, self.store.stats().await.expect("stats"), ready)) + &self.runs_overview().await
    }

    /// What can be seen of each job.
    async fn details(&self) -> String {
        let mut all = vec![];
        for id in &self.jobs {
            let attempts = self.store.attempts(*id).await.expect("read");
            let mut outputs = vec![];
            for attempt in 0..=attempts.len() as u32 + 1 {
                let slice = self.store.output(*id, attempt, 0, usize::MAX / 2).await.expect("read");
                outputs.push(slice.map(|slice| (merged(slice.records.iter()), slice.end, slice.sealed)));
            }
            let job = self.store.job(*id).await.expect("read");
            let lease = self.store.lease_of(*id).await.expect("read");
            all.push((job, attempts, lease, outputs));
        }
        let of_runs = match self.store.runs() {
            Some(runs) => self.runs_details(runs).await,
            None => String::new(),
        };
        self.plain(&all) + &of_runs
    }

    /// A value as text, without what is random or goes on by itself.
    fn plain(&self, value: &impl Debug) -> String {
        let mut text = format!("{value:#?}");
        for fence in &self.fences {
            let lease = fence.lease.to_string();
            if text.contains(&lease) {
                text = text.replace(&lease, &format!("the lease of {} attempt {}", fence.job, fence.attempt));
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("Timestamp(") {
            let (number, after) = after.split_once(')').expect("a closed parenthesis");
            let micros: i64 = number.trim().trim_end_matches(',').parse().expect("a number");
            out.push_str(before);
            out.push_str(&format!("start + {}", (micros - self.origin.0).div_euclid(GRAIN)));
            rest = after;
        }
        out + rest
    }
}

fn queue(number: u8) -> QueueName {
    format!("queue-{number}").parse().expect("a queue")
}

impl Wish {
    fn claim(&self) -> Claim {
        let wish = wish(&format!("worker-{}", self.worker), self.limit);
        let offers = if self.label == 0 { offers() } else { offering(&self.label.to_string()) };
        Claim {
            queues: self.queues.iter().map(|number| queue(*number)).collect(),
            offers: Arc::new(Offers { worker: Some(wish.worker.clone()), ..offers }),
            lease: TICK * self.lease,
            ..wish
        }
    }
}

impl Ended {
    fn finish(&self, fence: Fence) -> Finish {
        let output = self.output.map(|(offset, length)| chunk(offset, &vec![b'z'; length]));
        let (retryable, fails_run) = (self.retryable, self.fails_run);
        let outputs = self.made.iter().map(|number| (number.to_string(), fence.attempt.to_string())).collect();
        let artifacts = self.made.iter().map(|number| artifact(*number)).collect();
        Finish {
            result: AttemptResult { retryable, fails_run, output, outputs, artifacts, ..result(fence, self.outcome) },
        }
    }
}

fn same(what: &str, model: &str, tested: &str) -> Result<(), TestCaseError> {
    if model == tested {
        return Ok(());
    }
    let line = model.lines().zip(tested.lines()).position(|(model, tested)| model != tested).unwrap_or(0);
    let near = |text: &str| text.lines().skip(line.saturating_sub(20)).take(40).collect::<Vec<_>>().join("\n");
    Err(TestCaseError::fail(format!("{what}\n--- the model:\n{}\n--- the store:\n{}", near(model), near(tested))))
}

async fn both_do<H: Reopen>(commands: &[Command], mut harness: H) -> Result<(), TestCaseError> {
    let clock = ManualClock::default();
    let mut model = Side::new(Arc::new(ModelStore::new(Arc::new(clock.clone())))).await;
    let mut tested = Side::new(harness.store()).await;
    for (number, command) in commands.iter().enumerate() {
        let span = STEP + if let Command::Pass(ticks) = command { TICK * *ticks } else { Duration::ZERO };
        clock.advance(span);
        harness.advance(span).await;
        model.elapsed += span;
        tested.elapsed += span;
        if let Command::Reopen = command {
            // Nobody else may hold it meanwhile.
            tested.store = model.store.clone();
            harness.reopen().await;
            tested.store = harness.store();
        }
        if tested.store.runs().is_none() && matches!(command, Command::Run(_)) {
            continue;
        }
        let at = format!("command {number}, {command:?}");
        same(&format!("answers to {at}"), &model.carry_out(command).await, &tested.carry_out(command).await)?;
        same(&format!("jobs after {at}"), &model.overview().await, &tested.overview().await)?;
    }
    same("all jobs in the end", &model.details().await, &tested.details().await)
}

/// Runs `cases` random sequences; the shortest that fails is shown.
pub(crate) fn random_commands<H: Reopen>(cases: u32) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let sequences = proptest::collection::vec(command(), 1..60);
    let outcome = TestRunner::new(config).run(&sequences, |commands| {
        runtime.block_on(async {
            match H::open().await {
                Some(harness) => both_do(&commands, harness).await,
                None => Ok(()),
            }
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
