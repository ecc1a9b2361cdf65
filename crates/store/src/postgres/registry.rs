//! What every process knows by heart: the buckets.
//!
//! Buckets are made one process at a time, in the order of their ids, and never deleted. So a process that knows all
//! ids up to the highest knows all buckets, and one look at the highest id tells whether there are more.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use executr_spec::{Offers, Priority, QueueName, RequirementClass, Tenant};

use super::fault::Fault;
use super::session::Session;
use crate::{MAX_CLASSES_PER_QUEUE, StoreError};

/// So many different offers are remembered with the classes they meet.
const MOST_FILTERS: usize = 256;

/// With fewer buckets it does not matter by which index they are found.
const FEW_BUCKETS: i32 = 32;

/// The lock under which buckets are made (any number of our own).
pub(super) const BUCKET_LOCK: i64 = 0x6578_6563_7574_7201;

/// What a bucket holds jobs of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    pub(super) queue: QueueName,
    pub(super) class: RequirementClass,
    pub(super) priority: Priority,
    pub(super) tenant: Tenant,
}

/// Which classes of a queue a worker can run.
#[derive(Debug)]
pub(super) enum ClassFilter {
    /// All there are.
    All,
    /// These.
    Some(Vec<String>),
}

#[derive(Default)]
struct Known {
    highest: i32,
    by_id: HashMap<i32, Arc<Bucket>>,
    by_name: HashMap<Arc<Bucket>, i32>,
    /// The first bucket of each queue, class and priority: the tally's key.
    groups: HashMap<(QueueName, RequirementClass, Priority), i32>,
    classes: HashMap<QueueName, BTreeSet<RequirementClass>>,
    /// Classes seen alive in a queue since the last [`Registry::forget_live`].
    live: HashMap<QueueName, BTreeSet<RequirementClass>>,
    filters: Vec<(QueueName, Arc<Offers>, Arc<ClassFilter>)>,
}

impl Known {
    fn learn(&mut self, id: i32, bucket: Bucket) {
        let group = (bucket.queue.clone(), bucket.class.clone(), bucket.priority);
        let first = self.groups.entry(group).or_insert(id);
        *first = id.min(*first);
        if self.classes.entry(bucket.queue.clone()).or_default().insert(bucket.class.clone()) {
            self.filters.retain(|(queue, _, _)| *queue != bucket.queue);
        }
        let bucket = Arc::new(bucket);
        self.by_id.insert(id, bucket.clone());
        self.by_name.insert(bucket, id);
        self.highest = self.highest.max(id);
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
    pub(super) fn group(&self, bucket: i32) -> i32 {
        let known = self.known();
        let group = known
            .by_id
            .get(&bucket)
            .and_then(|found| known.groups.get(&(found.queue.clone(), found.class.clone(), found.priority)));
        group.copied().unwrap_or(bucket)
    }

    /// Reads what other processes made.
    pub(super) async fn refresh(&self, session: &mut Session) -> Result<(), Fault> {
        let highest = self.highest();
        let rows = session
            .rows(
                "SELECT id, queue, class, priority, tenant FROM executr.bucket WHERE id > $1 ORDER BY id",
                &[&highest],
            )
            .await?;
        let mut known = self.known();
        for row in rows {
            let parsed = (|| {
                Some(Bucket {
                    queue: row.get::<_, &str>(1).parse().ok()?,
                    class: row.get::<_, &str>(2).parse().ok()?,
                    priority: Priority::from_rank(row.get(3))?,
                    tenant: row.get::<_, &str>(4).parse().ok()?,
                })
            })();
            let id: i32 = row.get(0);
            match parsed {
                Some(bucket) => known.learn(id, bucket),
                // A newer program's class: its jobs are not for this one, and no worker here can run them.
                None => {
                    tracing::warn!(bucket = id, "a bucket of this database is not known to this version");
                    known.highest = known.highest.max(id);
                }
            }
        }
        Ok(())
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
        self.known().by_id.get(&id).cloned()
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
            let queues: Vec<&str> = missing.iter().map(|bucket| bucket.queue.as_str()).collect();
            let classes: Vec<&str> = missing.iter().map(|bucket| bucket.class.as_str()).collect();
            let priorities: Vec<i16> = missing.iter().map(|bucket| bucket.priority.rank()).collect();
            let tenants: Vec<&str> = missing.iter().map(|bucket| bucket.tenant.as_str()).collect();
            session
                .run(
                    "INSERT INTO executr.bucket (id, queue, class, priority, tenant)
                     SELECT (SELECT coalesce(max(id), 0) FROM executr.bucket) + n, queue, class, priority, tenant
                     FROM unnest($1::text[], $2::text[], $3::smallint[], $4::text[])
                          WITH ORDINALITY new (queue, class, priority, tenant, n)",
                    &[&queues, &classes, &priorities, &tenants],
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
        let all = classes.map_or(0, BTreeSet::len);
        let met: Vec<String> = classes
            .into_iter()
            .flatten()
            .filter(|class| class.requirements().met_by(offers))
            .map(|class| class.as_str().to_owned())
            .collect();
        let filter = Arc::new(if met.len() == all { ClassFilter::All } else { ClassFilter::Some(met) });
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
        let buckets = rows.iter().filter_map(|row| known.by_id.get(&row.get::<_, i32>(0)));
        Ok(buckets.filter(|bucket| bucket.queue == *queue).map(|bucket| bucket.class.clone()).collect())
    }

    /// The buckets of a queue, of a priority, or of both.
    pub(super) fn matching(&self, queue: Option<&QueueName>, priority: Option<Priority>) -> Vec<i32> {
        let known = self.known();
        let matching = known.by_id.iter().filter(|(_, bucket)| {
            queue.is_none_or(|queue| bucket.queue == *queue)
                && priority.is_none_or(|priority| bucket.priority == priority)
        });
        matching.map(|(id, _)| *id).collect()
    }
}
