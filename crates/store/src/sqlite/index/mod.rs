//! What the writer keeps in memory of the queue: buckets, how many jobs stand in each state, whose turn it is.
//!
//! Nothing here grows with the number of waiting jobs: a bucket is a queue, class, priority and tenant, and knows how
//! many jobs it has and the oldest few. Everything is rebuilt from the tables `bucket` and `turn` when the database is
//! opened; what changed since is written back within the same command ([`Index::flush`]).

mod queue;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use executr_api::{JobState, JobStatus, StatsView};
use executr_spec::{Offers, Priority, QueueName, RequirementClass, Tenant};
use rusqlite::{Connection, params};

use self::queue::{InLine, Queue};
use self::window::{WINDOW, Window};
use super::error::{damaged, from_sqlite};
use super::row::{STATES, integer, parsed, state_code, unsigned};
use crate::{MAX_CLASSES_PER_QUEUE, Readied, StoreError};

/// A bucket's number, as in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BucketId(pub(super) i64);

/// What makes a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BucketKey {
    pub(super) queue: QueueName,
    pub(super) class: RequirementClass,
    pub(super) priority: Priority,
    pub(super) tenant: Tenant,
}

#[derive(Debug)]
struct Bucket {
    key: Arc<BucketKey>,
    /// Jobs in each state, by `state_code`.
    counts: [u64; STATES.len()],
    /// Its part of the ready set.
    ready: Window,
    /// Where its queue keeps the turn of its tenant.
    turn: usize,
    /// Where its queue keeps its class, while one of its jobs isn't final.
    class: usize,
    /// Which class of that text it was in last.
    incarnation: u64,
    /// Whether it stands in a line of that class.
    in_line: bool,
    changed: bool,
}

impl Bucket {
    fn live(&self) -> bool {
        STATES.iter().zip(self.counts).any(|(state, count)| count > 0 && !state.is_final())
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Everything together.
#[derive(Debug, Default)]
pub(super) struct Index {
    buckets: HashMap<BucketId, Bucket>,
    ids: HashMap<Arc<BucketKey>, BucketId>,
    queues: HashMap<QueueName, Queue>,
    changed: Vec<BucketId>,
    changed_turns: Vec<(Arc<BucketKey>, usize)>,
    last_bucket: i64,
    last_turn: u64,
}

impl Index {
    /// Reads it from the database. `reclaimable` are the running jobs in the ready set, by bucket.
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut index = Self::default();
        let mut turns = connection.prepare("SELECT queue, priority, tenant, turn FROM turn").map_err(from_sqlite)?;
        let mut rows = turns.query([]).map_err(from_sqlite)?;
        while let Some(row) = rows.next().map_err(from_sqlite)? {
            let queue = parsed(&row.get::<_, String>(0).map_err(from_sqlite)?)?;
            let priority = priority(row.get(1).map_err(from_sqlite)?)?;
            let tenant: Tenant = parsed(&row.get::<_, String>(2).map_err(from_sqlite)?)?;
            let turn = unsigned(row.get(3).map_err(from_sqlite)?);
            let queue: &mut Queue = index.queues.entry(queue).or_default();
            let at = queue.turn_of(priority, &tenant);
            queue.set_turn(at, turn);
            index.last_turn = index.last_turn.max(turn);
        }
        let mut reclaimable: HashMap<i64, u64> = HashMap::new();
        let mut statement = connection
            .prepare("SELECT bucket, count(*) FROM lease JOIN job USING (seq) WHERE reclaimable GROUP BY bucket")
            .map_err(from_sqlite)?;
        let mut rows = statement.query([]).map_err(from_sqlite)?;
        while let Some(row) = rows.next().map_err(from_sqlite)? {
            reclaimable.insert(row.get(0).map_err(from_sqlite)?, unsigned(row.get(1).map_err(from_sqlite)?));
        }
        let mut statement = connection
            .prepare(
                "SELECT id, queue, class, priority, tenant,
                        scheduled, blocked, ready, running, cancelling, completed, failed, cancelled, waiting, skipped
                 FROM bucket",
            )
            .map_err(from_sqlite)?;
        let mut rows = statement.query([]).map_err(from_sqlite)?;
        while let Some(row) = rows.next().map_err(from_sqlite)? {
            let id: i64 = row.get(0).map_err(from_sqlite)?;
            let key = BucketKey {
                queue: parsed(&row.get::<_, String>(1).map_err(from_sqlite)?)?,
                class: parsed(&row.get::<_, String>(2).map_err(from_sqlite)?)?,
                priority: priority(row.get(3).map_err(from_sqlite)?)?,
                tenant: parsed(&row.get::<_, String>(4).map_err(from_sqlite)?)?,
            };
            let mut counts = [0; STATES.len()];
            for (column, count) in (5..).zip(&mut counts) {
                *count = unsigned(row.get(column).map_err(from_sqlite)?);
            }
            let standing =
                counts[usize::from(state_code(JobState::Ready))] + reclaimable.get(&id).copied().unwrap_or(0);
            index.insert(BucketId(id), key, counts, Window::of(standing));
        }
        Ok(index)
    }

    fn insert(&mut self, id: BucketId, key: BucketKey, counts: [u64; STATES.len()], ready: Window) {
        let key = Arc::new(key);
        let queue = self.queues.entry(key.queue.clone()).or_default();
        let turn = queue.turn_of(key.priority, &key.tenant);
        let mut bucket =
            Bucket { key: key.clone(), counts, ready, turn, class: 0, incarnation: 0, in_line: false, changed: false };
        if bucket.live() {
            (bucket.class, bucket.incarnation) = queue.join_class(&key.class);
        }
        if bucket.ready.total() > 0 {
            bucket.in_line = true;
            queue.line_up(bucket.class, key.priority, turn, id);
        }
        self.last_bucket = self.last_bucket.max(id.0);
        self.ids.insert(key, id);
        self.buckets.insert(id, bucket);
    }

    /// The bucket, made in the database too if it is new.
    pub(super) fn bucket(&mut self, key: &BucketKey, connection: &Connection) -> Result<BucketId, StoreError> {
        if let Some(id) = self.ids.get(key) {
            return Ok(*id);
        }
        let id = BucketId(self.last_bucket + 1);
        connection
            .prepare_cached("INSERT INTO bucket VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)")
            .and_then(|mut statement| {
                statement.execute(params![
                    id.0,
                    key.queue.as_str(),
                    key.class.as_str(),
                    key.priority.rank(),
                    key.tenant.as_str()
                ])
            })
            .map_err(from_sqlite)?;
        self.insert(id, key.clone(), [0; STATES.len()], Window::default());
        Ok(id)
    }

    /// What makes this bucket.
    pub(super) fn key(&self, id: BucketId) -> Result<Arc<BucketKey>, StoreError> {
        self.buckets.get(&id).map(|bucket| bucket.key.clone()).ok_or_else(|| damaged(format_args!("bucket {}", id.0)))
    }

    fn bucket_mut(&mut self, id: BucketId) -> Result<&mut Bucket, StoreError> {
        self.buckets.get_mut(&id).ok_or_else(|| damaged(format_args!("bucket {}", id.0)))
    }

    /// A job of the bucket goes from one state to another. `None` is before it was recorded and after it was deleted.
    pub(super) fn step(
        &mut self,
        id: BucketId,
        from: Option<JobState>,
        to: Option<JobState>,
    ) -> Result<(), StoreError> {
        let bucket = self.bucket_mut(id)?;
        let was_live = bucket.live();
        if let Some(from) = from {
            let count = &mut bucket.counts[usize::from(state_code(from))];
            *count = count.saturating_sub(1);
        }
        if let Some(to) = to {
            bucket.counts[usize::from(state_code(to))] += 1;
        }
        let (live, key, class) = (bucket.live(), bucket.key.clone(), bucket.class);
        let first_change = !std::mem::replace(&mut bucket.changed, true);
        if first_change {
            self.changed.push(id);
        }
        if live != was_live {
            let queue = self.queues.entry(key.queue.clone()).or_default();
            if live {
                let (class, incarnation) = queue.join_class(&key.class);
                let bucket = self.bucket_mut(id)?;
                bucket.in_line &= bucket.incarnation == incarnation;
                (bucket.class, bucket.incarnation) = (class, incarnation);
            } else {
                queue.leave_class(class);
            }
        }
        Ok(())
    }

    /// So many jobs of the bucket in this state, which is a final one, are deleted.
    pub(super) fn forget(&mut self, id: BucketId, state: JobState, jobs: u64) -> Result<(), StoreError> {
        self.step(id, Some(state), None)?;
        let count = &mut self.bucket_mut(id)?.counts[usize::from(state_code(state))];
        *count = count.saturating_sub(jobs.saturating_sub(1));
        Ok(())
    }

    /// A job joins the ready set. It must have been counted by [`step`](Self::step) before.
    pub(super) fn enter(&mut self, id: BucketId, seq: i64) -> Result<(), StoreError> {
        let bucket = self.bucket_mut(id)?;
        bucket.ready.insert(seq);
        if !std::mem::replace(&mut bucket.in_line, true) {
            let (key, class, turn) = (bucket.key.clone(), bucket.class, bucket.turn);
            if let Some(queue) = self.queues.get_mut(&key.queue) {
                queue.line_up(class, key.priority, turn, id);
            }
        }
        Ok(())
    }

    /// A job leaves the ready set.
    pub(super) fn leave(&mut self, id: BucketId, seq: i64) -> Result<(), StoreError> {
        self.bucket_mut(id)?.ready.remove(seq);
        Ok(())
    }

    /// The next job of a queue and priority for a worker with these offers. It stays where it is.
    pub(super) fn next(
        &mut self,
        queue: &QueueName,
        priority: Priority,
        classes: &[usize],
        connection: &Connection,
    ) -> Result<Option<(BucketId, i64)>, StoreError> {
        let Some(queue) = self.queues.get_mut(queue) else { return Ok(None) };
        // The tenant is the one whose turn is first; of its classes the one with the oldest job.
        let mut best: Option<(InLine, i64)> = None;
        for &class in classes {
            let first = queue.first_in_line(class, priority, |id| still_in_line(&mut self.buckets, id));
            let Some(first) = first else { continue };
            if best.as_ref().is_some_and(|(best, _)| best.place() < first.place()) {
                continue;
            }
            let Some(bucket) = self.buckets.get_mut(&first.bucket) else { continue };
            if bucket.ready.is_dry() {
                bucket.ready.refill(oldest(connection, first.bucket)?);
            }
            let Some(seq) = bucket.ready.first() else {
                return Err(damaged(format_args!("too few ready jobs in bucket {}", first.bucket.0)));
            };
            if best.as_ref().is_none_or(|(best, oldest)| first.place() < best.place() || seq < *oldest) {
                best = Some((first, seq));
            }
        }
        Ok(best.map(|(first, seq)| (first.bucket, seq)))
    }

    /// The classes of the queue that a worker with these offers can run.
    pub(super) fn classes_for(&mut self, queue: &QueueName, offers: &Offers, offers_text: &str) -> Arc<[usize]> {
        self.queues.get_mut(queue).map(|queue| queue.met(offers, offers_text)).unwrap_or_default()
    }

    /// A tenant was served.
    pub(super) fn served(&mut self, id: BucketId) -> Result<(), StoreError> {
        let (key, at) = {
            let bucket = self.bucket_mut(id)?;
            (bucket.key.clone(), bucket.turn)
        };
        self.last_turn += 1;
        let turn = self.last_turn;
        if let Some(queue) = self.queues.get_mut(&key.queue)
            && queue.serve(at, turn)
        {
            self.changed_turns.push((key, at));
        }
        Ok(())
    }

    /// Whether the class is live in the queue.
    pub(super) fn has_class(&self, queue: &QueueName, class: &RequirementClass) -> bool {
        self.queues.get(queue).is_some_and(|queue| queue.has_class(class))
    }

    /// How many classes more the queue may have.
    pub(super) fn room_for_classes(&self, queue: &QueueName) -> usize {
        MAX_CLASSES_PER_QUEUE.saturating_sub(self.queues.get(queue).map_or(0, Queue::live_classes))
    }

    /// The live classes of a queue, and whether each has a job in the ready set.
    pub(super) fn classes(&mut self, queue: &QueueName) -> Vec<(RequirementClass, bool)> {
        let Some(queue) = self.queues.get_mut(queue) else { return Vec::new() };
        let mut classes = Vec::with_capacity(queue.live_classes());
        for (class, text) in queue.class_texts() {
            let ready = Priority::ALL.into_iter().any(|priority| {
                queue.first_in_line(class, priority, |id| still_in_line(&mut self.buckets, id)).is_some()
            });
            classes.push((text, ready));
        }
        classes.sort_unstable();
        classes
    }

    /// Counts over all jobs.
    pub(super) fn stats(&self) -> StatsView {
        let mut stats = StatsView::default();
        for status in JobStatus::ALL {
            stats.jobs_by_status.insert(status.to_string(), 0);
        }
        let mut states = [0; STATES.len()];
        let mut priorities = [0; Priority::ALL.len()];
        let mut queues: BTreeMap<&QueueName, u64> = BTreeMap::new();
        for bucket in self.buckets.values() {
            for (state, count) in STATES.iter().zip(bucket.counts) {
                states[usize::from(state_code(*state))] += count;
                if state.status() == JobStatus::Pending && count > 0 {
                    priorities[bucket.key.priority as usize] += count;
                    *queues.entry(&bucket.key.queue).or_default() += count;
                }
            }
        }
        for (state, count) in STATES.iter().zip(states) {
            *stats.jobs_by_status.entry(state.status().to_string()).or_default() += count;
            if !state.is_final() {
                stats.jobs_by_state.insert(state.to_string(), count);
            }
        }
        for (priority, count) in Priority::ALL.iter().zip(priorities) {
            stats.pending_by_priority.insert(priority.to_string(), count);
        }
        stats.pending_by_queue = queues.into_iter().map(|(queue, count)| (queue.to_string(), count)).collect();
        stats
    }

    /// Writes down what changed since the last time; forgets buckets without jobs.
    pub(super) fn flush(&mut self, connection: &Connection) -> Result<(), StoreError> {
        for id in std::mem::take(&mut self.changed) {
            let Some(bucket) = self.buckets.get_mut(&id) else { continue };
            bucket.changed = false;
            if bucket.total() == 0 {
                connection
                    .prepare_cached("DELETE FROM bucket WHERE id = ?1")
                    .and_then(|mut statement| statement.execute([id.0]))
                    .map_err(from_sqlite)?;
                let key = bucket.key.clone();
                self.buckets.remove(&id);
                self.ids.remove(&key);
                continue;
            }
            let counts = bucket.counts.map(integer);
            connection
                .prepare_cached(
                    "UPDATE bucket SET scheduled = ?2, blocked = ?3, ready = ?4, running = ?5, cancelling = ?6,
                            completed = ?7, failed = ?8, cancelled = ?9, waiting = ?10, skipped = ?11 WHERE id = ?1",
                )
                .and_then(|mut statement| {
                    statement.execute(params![
                        id.0, counts[0], counts[1], counts[2], counts[3], counts[4], counts[5], counts[6], counts[7],
                        counts[8], counts[9]
                    ])
                })
                .map_err(from_sqlite)?;
        }
        for (key, at) in std::mem::take(&mut self.changed_turns) {
            if let Some(queue) = self.queues.get_mut(&key.queue) {
                queue.write_turn(&key.queue, at, connection)?;
            }
        }
        Ok(())
    }
}

/// Whether the bucket has jobs in the ready set; notes that it leaves the line when it hasn't.
fn still_in_line(buckets: &mut HashMap<BucketId, Bucket>, id: BucketId) -> bool {
    buckets.get_mut(&id).is_some_and(|bucket| {
        bucket.in_line &= bucket.ready.total() > 0;
        bucket.in_line
    })
}

/// The oldest jobs of the bucket's part of the ready set.
fn oldest(connection: &Connection, id: BucketId) -> Result<Vec<i64>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT seq FROM ready WHERE bucket = ?1 ORDER BY seq LIMIT ?2")
        .map_err(from_sqlite)?;
    let rows = statement.query_map(params![id.0, WINDOW as i64], |row| row.get(0)).map_err(from_sqlite)?;
    rows.collect::<Result<_, _>>().map_err(from_sqlite)
}

fn priority(rank: i16) -> Result<Priority, StoreError> {
    Priority::from_rank(rank).ok_or_else(|| damaged(format_args!("priority {rank}")))
}

/// What became ready, counted.
#[derive(Debug, Default)]
pub(super) struct ReadyCount(BTreeMap<BucketId, u32>);

impl ReadyCount {
    pub(super) fn add(&mut self, id: BucketId) {
        *self.0.entry(id).or_default() += 1;
    }

    pub(super) fn into_answer(self, index: &Index) -> Result<Vec<Readied>, StoreError> {
        let mut by_class: BTreeMap<(QueueName, RequirementClass), u32> = BTreeMap::new();
        for (id, jobs) in self.0 {
            let key = index.key(id)?;
            *by_class.entry((key.queue.clone(), key.class.clone())).or_default() += jobs;
        }
        Ok(by_class.into_iter().map(|((queue, class), jobs)| Readied { queue, class, jobs }).collect())
    }
}
