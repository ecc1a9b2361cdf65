//! What every process knows by heart: the buckets.
//!
//! Buckets are made one process at a time, in the order of their ids. So a process that knows all ids up to the highest
//! knows all buckets, and one look at the highest id tells whether there are more. One that fell out of use is retired,
//! see [`retire`](super::retire): submissions find that out when they lock it, all else may learn it late.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use executr_spec::{Offers, Priority, QueueName, RequirementClass, Requirements, Tenant};
use tokio_postgres::Row;

use super::fault::Fault;
use super::session::Session;
use crate::{MAX_CLASSES_PER_QUEUE, NewJob, StoreError};

/// So many different offers are remembered with the classes they meet.
const MOST_FILTERS: usize = 256;

/// With fewer buckets it does not matter by which index they are found.
const FEW_BUCKETS: i32 = 32;

/// The lock under which buckets are made and retired (any number of our own).
pub(super) const BUCKET_LOCK: i64 = 0x6578_6563_7574_7201;

/// What a bucket holds jobs of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    pub(super) queue: QueueName,
    /// `None`: a newer program's class. No worker here can run its jobs.
    pub(super) class: Option<RequirementClass>,
    pub(super) priority: Priority,
    pub(super) tenant: Tenant,
}

impl Bucket {
    /// That of a job.
    pub(super) fn of(job: &NewJob) -> Self {
        Self {
            queue: job.queue.clone(),
            class: Some(job.class.clone()),
            priority: job.priority,
            tenant: job.tenant.clone(),
        }
    }
}

/// Which classes of a queue a worker can run.
#[derive(Debug)]
pub(super) enum ClassFilter {
    /// All there are.
    All,
    /// These.
    Some(Vec<String>),
}

/// A bucket as it is remembered.
struct Kept {
    bucket: Arc<Bucket>,
    /// The key under which its jobs are counted, together with those of its queue, class and priority.
    tally: i32,
    retired: bool,
}

/// The columns of a bucket, as [`kept`] reads them.
const BUCKET: &str = "SELECT id, queue, class, priority, tenant, tally, retired FROM executr.bucket";

fn kept(row: &Row) -> (i32, Option<Kept>) {
    let bucket = (|| {
        Some(Bucket {
            queue: row.get::<_, &str>(1).parse().ok()?,
            class: row.get::<_, &str>(2).parse().ok(),
            priority: Priority::from_rank(row.get(3))?,
            tenant: row.get::<_, &str>(4).parse().ok()?,
        })
    })();
    let id = row.get(0);
    if bucket.is_none() {
        tracing::warn!(bucket = id, "a bucket of this database is not known to this version");
    }
    (id, bucket.map(|bucket| Kept { bucket: Arc::new(bucket), tally: row.get(5), retired: row.get(6) }))
}

#[derive(Default)]
struct Known {
    highest: i32,
    by_id: HashMap<i32, Kept>,
    /// Those that are in use and understood; the same holds for all below.
    by_name: HashMap<Arc<Bucket>, i32>,
    tallies: HashMap<(QueueName, RequirementClass, Priority), i32>,
    classes: HashMap<QueueName, BTreeMap<RequirementClass, Requirements>>,
    /// Queues with a class that only a newer program understands.
    strange: HashSet<QueueName>,
    /// Classes seen alive in a queue since the last [`Registry::forget_live`].
    live: HashMap<QueueName, BTreeSet<RequirementClass>>,
    filters: Vec<(QueueName, Arc<Offers>, Arc<ClassFilter>)>,
}

impl Known {
    fn learn(&mut self, id: i32, kept: Option<Kept>) {
        self.highest = self.highest.max(id);
        let Some(kept) = kept else { return };
        if !kept.retired {
            self.put_in_use(id, kept.bucket.clone(), kept.tally);
        }
        self.by_id.insert(id, kept);
    }

    fn put_in_use(&mut self, id: i32, bucket: Arc<Bucket>, tally: i32) {
        let queue = &bucket.queue;
        let is_new = if let Some(class) = &bucket.class {
            self.tallies.insert((queue.clone(), class.clone(), bucket.priority), tally);
            let classes = self.classes.entry(queue.clone()).or_default();
            let is_new = !classes.contains_key(class);
            if is_new {
                classes.insert(class.clone(), class.requirements());
            }
            is_new
        } else {
            self.strange.insert(queue.clone())
        };
        if is_new {
            self.filters.retain(|(name, _, _)| name != queue);
        }
        if bucket.class.is_some() {
            self.by_name.insert(bucket, id);
        }
    }

    /// Takes to be in use what is not retired, and nothing else.
    fn sort_out(&mut self) {
        self.by_name.clear();
        self.tallies.clear();
        self.classes.clear();
        self.strange.clear();
        self.filters.clear();
        let mut in_use: Vec<_> = self.by_id.iter().filter(|(_, kept)| !kept.retired).collect();
        // Should one have been made anew unnoticed, the later one counts.
        in_use.sort_unstable_by_key(|(id, _)| **id);
        let in_use: Vec<_> = in_use.into_iter().map(|(id, kept)| (*id, kept.bucket.clone(), kept.tally)).collect();
        for (id, bucket, tally) in in_use {
            self.put_in_use(id, bucket, tally);
        }
    }
}

/// All buckets, as far as known.
#[derive(Default)]
pub(super) struct Registry(Mutex<Known>);

impl Registry {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest id known.
    pub(super) fn highest(&self) -> i32 {
        self.known().highest
    }

    /// The key under which jobs of this bucket are counted.
    pub(super) fn tally(&self, bucket: i32) -> i32 {
        self.known().by_id.get(&bucket).map_or(bucket, |kept| kept.tally)
    }

    /// The keys under which jobs of buckets in use are counted.
    pub(super) fn tallies(&self) -> HashSet<i32> {
        self.known().by_id.values().filter(|kept| !kept.retired).map(|kept| kept.tally).collect()
    }

    /// How many buckets are known, and how many of them are retired.
    pub(super) fn size(&self) -> (usize, usize) {
        let known = self.known();
        (known.by_id.len(), known.by_id.values().filter(|kept| kept.retired).count())
    }

    /// Reads what other processes made.
    pub(super) async fn refresh(&self, session: &mut Session) -> Result<(), Fault> {
        let highest = self.highest();
        let rows = session.rows(format!("{BUCKET} WHERE id > $1 ORDER BY id"), &[&highest]).await?;
        let mut known = self.known();
        for row in rows {
            let (id, kept) = kept(&row);
            known.learn(id, kept);
        }
        Ok(())
    }

    /// Reads all there are, and forgets the others.
    pub(super) async fn reload(&self, session: &mut Session) -> Result<(), Fault> {
        let rows = session.rows(format!("{BUCKET} ORDER BY id"), &[]).await?;
        let mut there: BTreeMap<i32, Option<Kept>> = rows.iter().map(kept).collect();
        let highest = there.last_key_value().map_or(0, |(id, _)| *id);
        let mut known = self.known();
        known.by_id.retain(|id, kept| match there.get(id) {
            Some(Some(now)) => {
                kept.retired |= now.retired;
                true
            }
            // Made since.
            _ => *id > highest,
        });
        there.retain(|id, _| !known.by_id.contains_key(id));
        for (id, kept) in there {
            known.learn(id, kept);
        }
        known.sort_out();
        Ok(())
    }

    /// These are retired, as it turned out.
    pub(super) fn forget(&self, retired: &[i32]) {
        let mut known = self.known();
        for id in retired {
            if let Some(kept) = known.by_id.get_mut(id) {
                kept.retired = true;
            }
        }
        known.sort_out();
    }

    /// The bucket with this id.
    pub(super) async fn bucket(&self, session: &mut Session, id: i32) -> Result<Arc<Bucket>, Fault> {
        if let Some(found) = self.lookup(id) {
            return Ok(found);
        }
        self.refresh(session).await?;
        self.lookup(id).ok_or_else(|| StoreError::Database(format!("it has no bucket {id}")).into())
    }

    /// The bucket with this id, if known already.
    pub(super) fn lookup(&self, id: i32) -> Option<Arc<Bucket>> {
        self.known().by_id.get(&id).map(|kept| kept.bucket.clone())
    }

    /// The id of a bucket in use, if known already.
    pub(super) fn id(&self, bucket: &Bucket) -> Option<i32> {
        self.known().by_name.get(bucket).copied()
    }

    /// The ids of buckets, which are made if they are missing. Outside of any transaction.
    pub(super) async fn ids(&self, session: &mut Session, buckets: &[Bucket]) -> Result<Vec<i32>, Fault> {
        let missing = |known: &Known| -> Vec<Bucket> {
            let mut seen = BTreeSet::new();
            let new = buckets.iter().filter(|bucket| !known.by_name.contains_key(*bucket));
            new.filter(|b| seen.insert((&b.queue, &b.class, b.priority, &b.tenant))).cloned().collect()
        };
        if !missing(&self.known()).is_empty() {
            session.begin(0).await?;
            session.rows("SELECT pg_advisory_xact_lock($1)", &[&BUCKET_LOCK]).await?;
            self.refresh(session).await?;
            let missing = missing(&self.known());
            let texts = |value: fn(&Bucket) -> &str| -> Vec<&str> { missing.iter().map(value).collect() };
            let queues = texts(|bucket| bucket.queue.as_str());
            let classes = texts(|bucket| bucket.class.as_ref().map_or("", RequirementClass::as_str));
            let tenants = texts(|bucket| bucket.tenant.as_str());
            let priorities: Vec<i16> = missing.iter().map(|bucket| bucket.priority.rank()).collect();
            let tallies: Vec<Option<i32>> = {
                let known = self.known();
                let tally = |bucket: &Bucket| {
                    let class = bucket.class.clone()?;
                    known.tallies.get(&(bucket.queue.clone(), class, bucket.priority)).copied()
                };
                missing.iter().map(tally).collect()
            };
            session
                .run(
                    // Those with whom they would be counted may be retired: then they are counted by themselves.
                    "INSERT INTO executr.bucket (id, queue, class, priority, tenant, tally)
                     SELECT id, queue, class, priority, tenant,
                            coalesce((SELECT b.id FROM executr.bucket b WHERE b.id = new.tally AND NOT b.retired),
                                     min(id) OVER (PARTITION BY queue, class, priority))
                     FROM (SELECT (SELECT coalesce(max(id), 0) FROM executr.bucket) + n::int AS id,
                                  queue, class, priority, tenant, tally
                           FROM unnest($1::text[], $2::text[], $3::smallint[], $4::text[], $5::int[])
                                WITH ORDINALITY asked (queue, class, priority, tenant, tally, n)) AS new",
                    &[&queues, &classes, &priorities, &tenants, &tallies],
                )
                .await?;
            session.commit().await?;
            let before = self.highest();
            self.refresh(session).await?;
            // Plans are made for few buckets until the server knows of many; by itself it notices minutes later.
            if self.highest().max(1).ilog2() > before.max(FEW_BUCKETS).ilog2() {
                session.client().batch_execute("ANALYZE executr.bucket").await?;
            }
        }
        let known = self.known();
        buckets
            .iter()
            .map(|bucket| known.by_name.get(bucket).copied())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| StoreError::Database("a bucket that was made is not there".to_owned()).into())
    }

    /// Which of the queue's classes `offers` meets.
    pub(super) fn filter(&self, queue: &QueueName, offers: &Arc<Offers>) -> Arc<ClassFilter> {
        let mut known = self.known();
        let remembered =
            known.filters.iter().find(|(name, of, _)| name == queue && (Arc::ptr_eq(of, offers) || of == offers));
        if let Some((_, _, filter)) = remembered {
            return filter.clone();
        }
        let classes = known.classes.get(queue);
        let all = classes.map_or(0, BTreeMap::len);
        let met: Vec<String> = classes
            .into_iter()
            .flatten()
            .filter(|(_, requirements)| requirements.met_by(offers))
            .map(|(class, _)| class.as_str().to_owned())
            .collect();
        let is_all = met.len() == all && !known.strange.contains(queue);
        let filter = Arc::new(if is_all { ClassFilter::All } else { ClassFilter::Some(met) });
        if known.filters.len() >= MOST_FILTERS {
            known.filters.clear();
        }
        known.filters.push((queue.clone(), offers.clone(), filter.clone()));
        filter
    }

    /// Forgets which classes are alive, so that the next submission looks.
    pub(super) fn forget_live(&self) {
        self.known().live.clear();
    }

    /// Checks that jobs of these classes may be in the queue together with those that are there; remembers them as alive if so.
    /// The first class that is one too many is the error.
    pub(super) async fn admit(
        &self,
        session: &mut Session,
        queue: &QueueName,
        classes: &[&RequirementClass],
    ) -> Result<Result<(), usize>, Fault> {
        let is_alive = |known: &Known| {
            let live = known.live.get(queue);
            classes.iter().all(|class| live.is_some_and(|live| live.contains(*class)))
        };
        if is_alive(&self.known()) {
            return Ok(Ok(()));
        }
        let mut live = self.live_classes(session, queue).await?;
        for (index, class) in classes.iter().enumerate() {
            if !live.contains(*class) {
                if live.len() >= MAX_CLASSES_PER_QUEUE {
                    return Ok(Err(index));
                }
                live.insert((*class).clone());
            }
        }
        self.known().live.insert(queue.clone(), live);
        Ok(Ok(()))
    }

    /// The classes of the queue of which a job is not final.
    pub(super) async fn live_classes(
        &self,
        session: &mut Session,
        queue: &QueueName,
    ) -> Result<BTreeSet<RequirementClass>, Fault> {
        self.refresh(session).await?;
        let rows = session
            .rows("SELECT bucket FROM executr.tally WHERE state < 5 GROUP BY bucket HAVING sum(jobs) > 0", &[])
            .await?;
        let known = self.known();
        let buckets = rows.iter().filter_map(|row| known.by_id.get(&row.get::<_, i32>(0))).map(|kept| &kept.bucket);
        Ok(buckets.filter(|bucket| bucket.queue == *queue).filter_map(|bucket| bucket.class.clone()).collect())
    }

    /// The buckets of a queue, of a priority, or of both.
    pub(super) fn matching(&self, queue: Option<&QueueName>, priority: Option<Priority>) -> Vec<i32> {
        let known = self.known();
        let matching = known.by_id.iter().filter(|(_, Kept { bucket, .. })| {
            queue.is_none_or(|queue| bucket.queue == *queue)
                && priority.is_none_or(|priority| bucket.priority == priority)
        });
        matching.map(|(id, _)| *id).collect()
    }
}
