//! The connections of a store, and how a unit of work gets through while the database comes and goes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use executr_api::RetryDelay;
use tokio::sync::Notify;

use super::address::Address;
use super::fault::Fault;
use super::options::PostgresOptions;
use super::output::Days;
use super::pool::Pool;
use super::registry::Registry;
use super::session::Session;
use super::upkeep::Upkeep;
use crate::{StoreCounters, StoreError};

/// The first and the longest wait before a new attempt at connecting.
const AWAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// So many connections for what only shows something to somebody.
pub(super) const READS: usize = 3;
/// How often transactions that stood in each other's way are repeated.
const MOST_CONFLICTS: u32 = 20;

/// A unit of work under way.
pub(super) type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// A unit of work: begins and commits its own transaction. May be carried out again after a [`Fault`]; the last argument
/// is true then, because what was done before may have been committed.
pub(super) type Unit<I, T> = for<'a> fn(&'a Core, &'a mut Session, &'a I, bool) -> Work<'a, T>;

/// What all parts of a store share.
pub(super) struct Core {
    pub(super) options: PostgresOptions,
    pub(super) address: Address,
    pub(super) registry: Registry,
    pub(super) upkeep: Upkeep,
    pub(super) days: Days,
    /// Notified when a command of the queue was carried out that may have been carried out before.
    pub(super) doubts: Arc<Notify>,
    queue: Pool,
    reads: Pool,
    queries: AtomicU64,
    errors: AtomicU64,
    query_micros: AtomicU64,
}

impl Core {
    pub(super) fn new(options: PostgresOptions) -> Result<Self, StoreError> {
        let address = options.address()?;
        Ok(Self {
            doubts: Arc::default(),
            queue: Pool::new(options.connections),
            reads: Pool::new(READS),
            options,
            address,
            registry: Registry::default(),
            upkeep: Upkeep::default(),
            days: Days::default(),
            queries: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            query_micros: AtomicU64::new(0),
        })
    }

    /// What tests add to the database's clock, in microseconds.
    pub(super) fn clock_offset(&self) -> i64 {
        self.options.clock_offset.load(Ordering::Relaxed)
    }

    /// Carries out `unit`, again and again while the database is away, as long as the options allow.
    pub(super) async fn carry_out<I: Sync, T>(&self, input: &I, unit: Unit<I, T>) -> Result<T, StoreError> {
        let mut again = false;
        let answer = self.carry_out_on(&self.queue, input, unit, &mut again).await;
        if again {
            self.doubts.notify_one();
        }
        answer
    }

    /// The same for what only shows something to somebody: however long it takes, the queue's work does not wait for it.
    pub(super) async fn look_up<I: Sync, T>(&self, input: &I, unit: Unit<I, T>) -> Result<T, StoreError> {
        self.carry_out_on(&self.reads, input, unit, &mut false).await
    }

    async fn carry_out_on<I: Sync, T>(
        &self,
        pool: &Pool,
        input: &I,
        unit: Unit<I, T>,
        again: &mut bool,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let answer = self.persist(pool, input, unit, again, began).await;
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.query_micros.fetch_add(micros, Ordering::Relaxed);
        answer
    }

    async fn persist<I: Sync, T>(
        &self,
        pool: &Pool,
        input: &I,
        unit: Unit<I, T>,
        again: &mut bool,
        began: Instant,
    ) -> Result<T, StoreError> {
        let mut delay = RetryDelay::new(AWAY.0, AWAY.1);
        let mut told_of = false;
        let mut conflicts = 0;
        loop {
            let fault = match self.try_once(pool, input, unit, again).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            match fault {
                Fault::Refused(error) => return Err(error),
                Fault::NoTable(told) => return Err(StoreError::Database(told)),
                Fault::Again(told) => {
                    conflicts += 1;
                    if conflicts > MOST_CONFLICTS || began.elapsed() > self.options.patience {
                        return Err(StoreError::Unavailable(told));
                    }
                }
                Fault::Lost(told) => {
                    let wait = delay.next_delay();
                    if began.elapsed() + wait > self.options.patience {
                        return Err(StoreError::Unavailable(told));
                    }
                    tokio::time::sleep(wait).await;
                    if !told_of && began.elapsed() >= AWAY.1 {
                        // Once for each command, and not when the database is back at once.
                        tracing::warn!(error = %told, "the database is away; trying again");
                        told_of = true;
                    }
                }
            }
        }
    }

    async fn try_once<I: Sync, T>(
        &self,
        pool: &Pool,
        input: &I,
        unit: Unit<I, T>,
        again: &mut bool,
    ) -> Result<T, Fault> {
        let mut session = pool.check_out(&self.address).await?;
        let answer = unit(self, session.get(), input, *again).await;
        if let Err(fault) = &answer {
            *again |= matches!(fault, Fault::Lost(_));
            session.get().roll_back().await;
        }
        session.done();
        answer
    }

    pub(super) fn counters(&self) -> StoreCounters {
        StoreCounters {
            queries: self.queries.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            query_micros: self.query_micros.load(Ordering::Relaxed),
            connections: self.queue.open() + self.reads.open(),
        }
    }
}
