//! Which workers there are: those that talk to this coordinator, those of others, and the original's executors.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use executr_api::{ApiError, QueueWeight, WorkerView};
use executr_spec::{ExecutorKind, JobId, Offers, SpecJson, Timestamp, WorkerId};
use executr_store::WorkerRecord;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::lock::Lock;
use crate::refusal;
use crate::sessions::Seen;
use crate::silence::Silence;
use crate::waiting_for::WaitingFor;

/// How often what is known of workers is written and read. Coarse, so that a beat costs no write.
const EVERY: Duration = Duration::from_secs(5);
/// A worker not heard of for this long doesn't count as there, nor for a lease, if that is longer.
const THERE: Duration = Duration::from_secs(15);
/// A session is forgotten after so many times the above.
const FORGOTTEN_AFTER: u32 = 4;
/// How many workers' leases are looked up at a time.
const LOOK_UPS: usize = 16;

/// For so long it is believed who is there, unless somebody comes.
const BELIEVED: Duration = Duration::from_secs(1);

/// What is known of workers that have no session here.
#[derive(Debug, Default)]
pub(crate) struct Fleet(Lock<State>);

#[derive(Debug, Default)]
struct State {
    /// As last read from the store.
    elsewhere: Arc<Vec<WorkerRecord>>,
    /// Who was there lately. Made anew for each job it would cost more than the job.
    there: Option<(Instant, Arc<WaitingFor>)>,
    /// Of the original's executors.
    originals: HashMap<WorkerId, Original>,
    silence: Silence,
}

#[derive(Debug)]
struct Original {
    ip: Option<String>,
    last_seen: Instant,
    /// Whether it was heard of since it was last written.
    heard: bool,
    /// Attempts it ended well, not yet written.
    completed: u64,
}

/// What the original's executors offer: the queue `default`, nothing special.
pub(crate) fn original_offers() -> Offers {
    Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() }
}

impl Fleet {
    /// An executor of the original was heard of.
    pub(crate) fn original(&self, id: &WorkerId, ip: Option<String>) {
        let mut state = self.0.hold();
        let known = state.originals.entry(id.clone()).or_insert_with(|| Original {
            ip: None,
            last_seen: Instant::now(),
            heard: true,
            completed: 0,
        });
        known.last_seen = Instant::now();
        known.heard = true;
        if ip.is_some() {
            known.ip = ip;
        }
    }

    /// An attempt of this worker ended well; counts when it is an executor of the original.
    pub(crate) fn completed(&self, id: &WorkerId, attempts: u64) {
        if let Some(original) = self.0.hold().originals.get_mut(id) {
            original.completed += attempts;
            original.heard = true;
        }
    }

    /// A worker came, or offers something else than before.
    pub(crate) fn came(&self) {
        self.0.hold().there = None;
    }

    /// The store could not be asked.
    fn doubt(&self) {
        self.0.hold().silence.doubt();
    }

    /// What the store knows of workers. Those not heard of since `since`, there or here, are silent; returns those that are
    /// lost.
    fn know(
        &self,
        known: Vec<WorkerRecord>,
        since: Timestamp,
        connected: Vec<Seen>,
        patience: Duration,
    ) -> Vec<WorkerId> {
        let (mut there, silent): (Vec<_>, Vec<_>) = known.into_iter().partition(|worker| worker.last_seen >= since);
        for worker in &mut there {
            worker.offers.worker = Some(worker.id.clone());
        }
        let here: HashSet<&WorkerId> = connected.iter().map(|seen| &seen.id).collect();
        let mut state = self.0.hold();
        let heard = there.iter().map(|worker| &worker.id).chain(here.iter().copied());
        let silent = silent.iter().map(|worker| &worker.id).filter(|worker| !here.contains(worker));
        let lost = state.silence.heard(heard, silent, patience);
        state.elsewhere = Arc::new(there);
        lost
    }

    fn originals(&self, there: Duration) -> Vec<WorkerRecord> {
        let mut state = self.0.hold();
        state.originals.retain(|_, original| original.last_seen.elapsed() < there);
        let mut records = Vec::new();
        for (id, original) in state.originals.iter_mut().filter(|(_, original)| original.heard) {
            original.heard = false;
            records.push(WorkerRecord {
                id: id.clone(),
                name: id.0.clone(),
                ip: original.ip.clone(),
                version: None,
                slots: 1,
                queues: vec![QueueWeight { queue: executr_spec::QueueName::default(), weight: 1 }],
                offers: original_offers(),
                draining: false,
                last_seen: Timestamp(0),
                jobs_completed: std::mem::take(&mut original.completed),
            });
        }
        records
    }
}

impl Core {
    fn there(&self) -> Duration {
        self.options.lease.max(THERE)
    }

    /// The workers that talk to this coordinator.
    pub(crate) fn connected(&self) -> Vec<Seen> {
        let there = self.there();
        self.sessions.all().iter().filter_map(|session| session.seen()).filter(|seen| seen.silent < there).collect()
    }

    /// The workers there are, to say what a job waits for.
    pub(crate) fn waiting_for(&self) -> Arc<WaitingFor> {
        if let Some((at, there)) = &self.fleet.0.hold().there
            && at.elapsed() < BELIEVED
        {
            return Arc::clone(there);
        }
        let here = self.connected().into_iter().map(|seen| seen.hello).collect();
        let mut state = self.fleet.0.hold();
        let there = Arc::new(WaitingFor::new(here, Arc::clone(&state.elsewhere)));
        state.there = Some((Instant::now(), Arc::clone(&there)));
        there
    }

    /// Writes what is known of workers, and reads what others know.
    pub(crate) async fn exchange_presence(self: &Arc<Self>) -> Result<(), ApiError> {
        let originals = self.fleet.originals(self.there());
        let again: Vec<(WorkerId, u64)> = originals.iter().map(|it| (it.id.clone(), it.jobs_completed)).collect();
        let mut records = originals;
        let mut noted = Vec::new();
        for session in self.sessions.all() {
            // A little less than the period, so that a timer's slack doesn't leave out every other time.
            if let Some(completed) = session.record(EVERY * 4 / 5)
                && let Some(seen) = session.seen()
            {
                records.push(record(&seen, completed));
                noted.push((session, completed));
            }
        }
        if !records.is_empty()
            && let Err(error) = self.store.put_workers(records).await
        {
            self.fleet.doubt();
            for (session, completed) in noted {
                session.unrecord(completed);
            }
            for (id, completed) in again {
                self.fleet.completed(&id, completed);
            }
            return Err(refusal::store(error));
        }
        let now = self.clock.now();
        let look_from = self.fleet.0.hold().silence.look_from(now, self.there() * FORGOTTEN_AFTER);
        let known = self.store.workers(look_from).await.inspect_err(|_| self.fleet.doubt()).map_err(refusal::store)?;
        let lost = self.fleet.know(known, now.minus(self.there()), self.connected(), self.there());
        self.sessions.forget(self.there() * FORGOTTEN_AFTER);
        self.lose_workspaces(lost).await
    }

    /// What these workers held for runs is given to others.
    async fn lose_workspaces(self: &Arc<Self>, lost: Vec<WorkerId>) -> Result<(), ApiError> {
        let Some(store) = self.store.runs().filter(|_| !lost.is_empty()) else { return Ok(()) };
        let progress = store.lose_workspaces(lost).await.inspect_err(|_| self.fleet.doubt()).map_err(refusal::store)?;
        self.progressed(&progress);
        Ok(())
    }

    /// All workers heard of lately, by name.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerView>, ApiError> {
        let now = self.clock.now();
        let records = self.store.workers(now.minus(self.there())).await.map_err(refusal::store)?;
        let mut connected: BTreeMap<WorkerId, Seen> =
            self.connected().into_iter().map(|seen| (seen.id.clone(), seen)).collect();
        let mut views: Vec<WorkerView> = Vec::with_capacity(records.len());
        let mut elsewhere = Vec::new();
        for record in records {
            match connected.remove(&record.id) {
                Some(seen) => views.push(view(self, &seen, record.jobs_completed)),
                None => elsewhere.push(record),
            }
        }
        views.extend(connected.values().map(|seen| view(self, seen, 0)));
        let looked_up: Vec<Result<WorkerView, ApiError>> = futures_util::stream::iter(elsewhere)
            .map(|record| async move {
                let leases = self.store.leases_of(&record.id).await.map_err(refusal::store)?;
                let current =
                    leases.iter().map(|lease| (lease.fence.job, lease.spec.clone())).min_by_key(|lease| lease.0);
                Ok(view_of_record(record, u32::try_from(leases.len()).unwrap_or(u32::MAX), current))
            })
            .buffer_unordered(LOOK_UPS)
            .collect()
            .await;
        for view in looked_up {
            views.push(view?);
        }
        views.sort_by(|a, b| (&a.name, &a.executor_id).cmp(&(&b.name, &b.executor_id)));
        Ok(views)
    }

    /// How many workers there are.
    pub(crate) async fn active_workers(&self) -> Result<u64, ApiError> {
        let since = self.clock.now().minus(self.there());
        let records = self.store.workers(since).await.map_err(refusal::store)?;
        let mut ids: std::collections::HashSet<WorkerId> = records.into_iter().map(|record| record.id).collect();
        ids.extend(self.connected().into_iter().map(|seen| seen.id));
        Ok(ids.len() as u64)
    }
}

/// Writes and reads until it is dropped.
pub(crate) async fn keep(core: Arc<Core>) {
    loop {
        // What fails was logged, and is tried again.
        let _ = core.exchange_presence().await;
        sleep(EVERY).await;
    }
}

fn record(seen: &Seen, completed: u64) -> WorkerRecord {
    WorkerRecord {
        id: seen.id.clone(),
        name: seen.hello.name.clone(),
        ip: seen.hello.ip.clone(),
        version: Some(seen.hello.version.to_string()),
        slots: seen.hello.slots,
        queues: seen.hello.queues.clone(),
        offers: seen.hello.offers.clone(),
        draining: seen.draining,
        last_seen: Timestamp(0),
        jobs_completed: completed,
    }
}

fn view(core: &Core, seen: &Seen, completed_before: u64) -> WorkerView {
    let record = WorkerRecord {
        last_seen: core.clock.now().minus(seen.silent),
        ..record(seen, completed_before + seen.completed)
    };
    view_of_record(record, seen.running, seen.current.clone())
}

fn view_of_record(record: WorkerRecord, running: u32, current: Option<(JobId, SpecJson)>) -> WorkerView {
    WorkerView {
        executor_id: record.id,
        name: record.name,
        current_job_id: current.as_ref().map(|(job, _)| *job),
        job_type: current.and_then(|(_, spec)| spec.read().ok()).map(|spec| spec.job_type.to_string()),
        last_heartbeat: record.last_seen,
        jobs_completed: record.jobs_completed,
        version: record.version,
        ip: record.ip,
        slots: record.slots,
        running,
        queues: record.queues,
        offers: record.offers,
        draining: record.draining,
    }
}
