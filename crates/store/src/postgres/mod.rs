//! The queue in PostgreSQL 15 or later, shared by any number of coordinators.
//!
//! Commands of one kind that arrive together are carried out together ([`gather`]), each batch as one transaction of a
//! few set-wise statements; whatever is decided row by row is decided here, by the rules in [`crate::lifecycle`]. Where a
//! job stands is told by the one table that has a row for it, see `migrations/0001_queue.sql`. While the database is away
//! commands wait and are repeated ([`core`]); each may be carried out twice:
//! - what it brought about may be missing in its answer, so [`Anything`](Signal::Anything) is signalled;
//! - a job that is submitted again under its id is recognised;
//! - a claim whose answer was lost left leases, which `leases_of` shows;
//! - a result that was taken is answered with `Before`;
//! - output that is there is passed over.
//!
//! Output stays in tables of its own, one for each day, also after an attempt has ended: all servers on the database see
//! it. Nothing is moved into blobs.
//!
//! What may not live here: rules of a job's life, and anything that waits for jobs.

mod address;
mod advance;
mod blob;
mod cancel;
mod change;
mod claim;
mod coding;
mod core;
mod directory;
mod fault;
mod finish;
mod gather;
mod job;
mod lanes;
mod lease;
mod options;
mod output;
mod permits;
mod pool;
mod registry;
mod retention;
mod retire;
mod runs;
mod schema;
mod session;
mod signals;
mod submit;
mod take;
mod tls;
mod upkeep;
mod url_settings;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use executr_api::output::OutputChunk;
use executr_api::{Fence, JobQuery, StatsView};
use executr_spec::{Digest, JobId, QueueName, RequirementClass, Timestamp, TokenId, WorkerId};
use tokio::sync::broadcast;
use uuid::Uuid;

pub use self::options::PostgresOptions;

use self::core::Core;
use self::gather::Gatherer;
use self::session::Session;
use self::signals::Signals;
use crate::{
    Advanced, AppendAnswer, AttemptRecord, CancelAnswer, Claim, ClaimAnswer, Finish, FinishAnswer, JobRecord,
    LeaseRecord, NewJob, OutputSlice, RenewAnswer, Renewal, Return, RunStore, Signal, Store, StoreCounters, StoreError,
    SubmitAnswer, TokenRecord, WorkerRecord,
};

/// So many rows one transaction of the queue writes, about.
const MOST_ROWS: usize = 2_000;
/// So many bytes of output one transaction takes, about.
const MOST_OUTPUT: usize = 8 << 20;

/// The queue in PostgreSQL.
pub struct PostgresStore {
    core: Arc<Core>,
    signals: Signals,
    submit: Gatherer<Vec<NewJob>, SubmitAnswer>,
    claim: Gatherer<Vec<Claim>, Vec<ClaimAnswer>>,
    finish: Gatherer<Vec<Finish>, Vec<FinishAnswer>>,
    renew: Gatherer<Vec<Renewal>, Vec<RenewAnswer>>,
    give_back: Gatherer<Vec<Return>, Vec<FinishAnswer>>,
    append: Gatherer<output::Append, AppendAnswer>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("at", &self.core.address.place()).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// `Config` when the URL, the user or the server can't be right; `Unavailable` when nobody answers;
    /// [`TooNew`](StoreError::TooNew).
    pub async fn connect(options: PostgresOptions) -> Result<Self, StoreError> {
        Self::migrate(&options).await?;
        let core = Arc::new(Core::new(options)?);
        core.carry_out(&(), |core, session, (), _| Box::pin(core.registry.refresh(session))).await?;
        upkeep::start(&core);
        Ok(Self {
            signals: Signals::start(&core.address, core.doubts.clone()),
            submit: Gatherer::start(core.clone(), MOST_ROWS, |core, session, jobs, again| {
                Box::pin(submit::submit(core, session, jobs, again))
            }),
            claim: Gatherer::start(core.clone(), MOST_ROWS, |core, session, claims, _| {
                Box::pin(claim::claim(core, session, claims))
            }),
            finish: Gatherer::start(core.clone(), MOST_ROWS, |core, session, results, _| {
                Box::pin(finish::finish(core, session, results))
            }),
            renew: Gatherer::start(core.clone(), MOST_ROWS, |core, session, renewals, _| {
                Box::pin(lease::renew(core, session, renewals))
            }),
            give_back: Gatherer::start(core.clone(), MOST_ROWS, |core, session, returns, _| {
                Box::pin(finish::give_back(core, session, returns))
            }),
            append: Gatherer::start(core.clone(), MOST_OUTPUT, |core, session, chunks, _| {
                Box::pin(output::append(core, session, chunks))
            }),
            core,
        })
    }

    /// Brings the schema up to date, and nothing else. Returns the names of the migrations that were applied.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn migrate(options: &PostgresOptions) -> Result<Vec<&'static str>, StoreError> {
        let core = Core::new(options.clone())?;
        core.carry_out(&(), |_, session, (), _| Box::pin(schema::migrate(session.client()))).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<SubmitAnswer, StoreError> {
        let rows = jobs.len();
        self.submit.ask(jobs, rows).await
    }

    async fn claim(&self, claims: Vec<Claim>) -> Result<Vec<ClaimAnswer>, StoreError> {
        let rows = claims.iter().map(|claim| claim.limit as usize).sum();
        self.claim.ask(claims, rows).await
    }

    async fn finish(&self, results: Vec<Finish>) -> Result<Vec<FinishAnswer>, StoreError> {
        let rows = results.len();
        self.finish.ask(results, rows).await
    }

    async fn renew(&self, renewals: Vec<Renewal>) -> Result<Vec<RenewAnswer>, StoreError> {
        let rows = renewals.len();
        self.renew.ask(renewals, rows).await
    }

    async fn give_back(&self, returns: Vec<Return>) -> Result<Vec<FinishAnswer>, StoreError> {
        let rows = returns.len();
        self.give_back.ask(returns, rows).await
    }

    async fn cancel(
        &self,
        jobs: Vec<JobId>,
        pending_only: bool,
        reason: &str,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        let wish = cancel::Wish { jobs, pending_only, reason: reason.to_owned() };
        self.core.carry_out(&wish, |core, session, wish, _| Box::pin(cancel::cancel(core, session, wish))).await
    }

    async fn advance(&self, may_reclaim: bool, limit: u32) -> Result<Advanced, StoreError> {
        let wish = advance::Wish { may_reclaim, limit };
        self.core.carry_out(&wish, |core, session, wish, _| Box::pin(advance::advance(core, session, *wish))).await
    }

    async fn delete_final(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let wish = retention::Wish { before, limit };
        self.core
            .carry_out(&wish, |core, session, wish, _| Box::pin(retention::delete_final(core, session, *wish)))
            .await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        let found = self
            .core
            .look_up(&id, |core, session, id, _| Box::pin(async move { job::by_ids(core, session, &[id.0]).await }))
            .await?;
        Ok(found.into_iter().next())
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.core.look_up(&id, |_, session, id, _| Box::pin(job::attempts(session, *id))).await
    }

    async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobRecord>, StoreError> {
        self.core.look_up(query, |core, session, query, _| Box::pin(job::list(core, session, query))).await
    }

    async fn stats(&self) -> Result<StatsView, StoreError> {
        self.core.look_up(&(), |core, session, (), _| Box::pin(job::stats(core, session))).await
    }

    async fn classes(&self, queue: &QueueName) -> Result<Vec<(RequirementClass, bool)>, StoreError> {
        self.core.carry_out(queue, |core, session, queue, _| Box::pin(job::classes(core, session, queue))).await
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseRecord>, StoreError> {
        self.core
            .carry_out(worker, |core, session, worker, _| {
                Box::pin(lease::list(core, session, lease::Of::Worker(worker)))
            })
            .await
    }

    async fn lease_of(&self, job: JobId) -> Result<Option<LeaseRecord>, StoreError> {
        let found = self
            .core
            .carry_out(&job, |core, session, job, _| Box::pin(lease::list(core, session, lease::Of::Job(*job))))
            .await?;
        Ok(found.into_iter().next())
    }

    async fn put_workers(&self, workers: Vec<WorkerRecord>) -> Result<(), StoreError> {
        self.core
            .carry_out(&workers, |core, session, workers, _| Box::pin(directory::put_workers(core, session, workers)))
            .await
    }

    async fn workers(&self, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError> {
        self.core.look_up(&since, |_, session, since, _| Box::pin(directory::workers(session, *since))).await
    }

    async fn append_output(&self, fence: &Fence, chunk: OutputChunk) -> Result<AppendAnswer, StoreError> {
        let bytes = chunk.records.as_bytes().len();
        self.append.ask((*fence, chunk), bytes).await
    }

    async fn output(
        &self,
        job: JobId,
        attempt: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Option<OutputSlice>, StoreError> {
        let wanted = output::Wanted { job, attempt, offset, max_bytes };
        self.core.look_up(&wanted, |_, session, wanted, _| Box::pin(output::read(session, *wanted))).await
    }

    async fn append_blob(&self, upload: Uuid, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        let piece = (upload, offset, bytes);
        self.core
            .carry_out(&piece, |core, session, piece, again| Box::pin(blob::append(core, session, piece, again)))
            .await
    }

    async fn finish_blob(&self, upload: Uuid, digest: Digest, size: u64) -> Result<(), StoreError> {
        let blob = (upload, digest, size);
        self.core.carry_out(&blob, |core, session, blob, _| Box::pin(blob::finish(core, session, blob))).await
    }

    async fn drop_blob_upload(&self, upload: Uuid) -> Result<(), StoreError> {
        self.core.carry_out(&upload, |_, session, upload, _| Box::pin(blob::drop_upload(session, *upload))).await
    }

    async fn touch_blob(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        self.core.carry_out(&digest, |core, session, digest, _| Box::pin(blob::touch(core, session, *digest))).await
    }

    async fn read_blob(&self, digest: Digest, offset: u64) -> Result<Option<Bytes>, StoreError> {
        let wanted = (digest, offset);
        self.core
            .look_up(&wanted, |_, session, (digest, offset), _| Box::pin(blob::read(session, *digest, *offset)))
            .await
    }

    async fn delete_blobs(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut total = 0;
        let mut wish = (before, Vec::new());
        // Transaction by transaction, so that nothing else waits for all of it.
        loop {
            let deleted = self.core.carry_out(&wish, |_, session, (before, after), _| {
                Box::pin(blob::delete_some(session, *before, after))
            });
            let (deleted, ended) = deleted.await?;
            total += deleted;
            match ended {
                Some(ended) => wish.1 = ended,
                None => return Ok(total),
            }
        }
    }

    async fn put_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.core
            .carry_out(&token, |core, session, token, _| Box::pin(directory::put_token(core, session, token)))
            .await
    }

    async fn token_by_hash(&self, hash: Digest) -> Result<Option<TokenRecord>, StoreError> {
        self.core
            .carry_out(&hash, |core, session, hash, _| Box::pin(directory::token_by_hash(core, session, *hash)))
            .await
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.core.look_up(&(), |_, session, (), _| Box::pin(directory::tokens(session))).await
    }

    async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        self.core.carry_out(&id, |_, session, id, _| Box::pin(directory::revoke_token(session, *id))).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.core.carry_out(&(), |core, session, (), _| Box::pin(now(core, session))).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.now().await.map(drop)
    }

    fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }

    fn publish(&self, signal: Signal) {
        self.signals.publish(signal);
    }

    fn runs(&self) -> Option<&dyn RunStore> {
        Some(self)
    }

    fn counters(&self) -> StoreCounters {
        self.core.counters()
    }
}

async fn now(core: &Core, session: &mut Session) -> Result<Timestamp, fault::Fault> {
    let now = session.begin(core.clock_offset()).await?;
    session.roll_back().await;
    Ok(now)
}
