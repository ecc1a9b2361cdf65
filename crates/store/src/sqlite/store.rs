//! The store: each command handed to the writer, the readers or the files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use executr_api::failpoint;
use executr_api::output::OutputChunk;
use executr_api::{Fence, JobQuery, StatsView};
use executr_spec::{Digest, JobId, QueueName, RequirementClass, Timestamp, TokenId, WorkerId};
use rusqlite::Connection;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::blobs::Blobs;
use super::checkpoint::Checkpointer;
use super::error::from_file;
use super::lock::DirectoryLock;
use super::options::SqliteOptions;
use super::output::{Logs, read_inline};
use super::readers::{Readers, blocking};
use super::writer::{Kind, Writer, WriterHandle, WriterParts};
use super::{connection, query, register, retention, schema};
use crate::{
    Advanced, AppendAnswer, AttemptRecord, CancelAnswer, Claim, ClaimAnswer, Clock, Finish, FinishAnswer, JobRecord,
    LeaseRecord, NewJob, OutputSlice, RenewAnswer, Renewal, Return, RunStore, Signal, Store, StoreCounters, StoreError,
    SubmitAnswer, TokenRecord, WorkerRecord,
};

/// So many final jobs are deleted in one go, so that nobody waits long behind it.
const DELETE_AT_ONCE: u32 = 32;

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    writer: WriterHandle,
    readers: Readers,
    logs: Arc<Logs>,
    blobs: Arc<Blobs>,
    /// Held by who makes blobs, together; alone by who deletes them: between a blob's file and its row none may go.
    blob_files: tokio::sync::RwLock<()>,
    clock: Arc<dyn Clock>,
    signals: broadcast::Sender<Signal>,
    counters: Counters,
    /// The last field: the directory is free when all above is closed.
    _lock: DirectoryLock,
}

#[derive(Debug, Default)]
struct Counters {
    queries: AtomicU64,
    errors: AtomicU64,
    micros: AtomicU64,
}

impl SqliteStore {
    /// Opens the store in its directory; brings the database to the newest schema.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it open, [`StoreError::TooNew`] when it was written by a program too new for this
    /// one, [`StoreError::File`] and [`StoreError::Database`] for what the disk holds against it.
    pub async fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        blocking(move || Self::open_now(&options)).await
    }

    fn open_now(options: &SqliteOptions) -> Result<Self, StoreError> {
        let directory = &options.directory;
        std::fs::create_dir_all(directory).map_err(from_file(directory))?;
        let lock = DirectoryLock::take(directory)?;
        let database = directory.join("queue.db");
        let mut connection = connection::for_writing(&database, options.synced)?;
        schema::migrate(&mut connection, options.clock.now())?;
        let checkpointer = Checkpointer::start(database.clone(), &mut connection)?;
        let logs = Arc::new(Logs::new(directory.join("output"), options.synced));
        let blobs = Arc::new(Blobs::new(directory, options.shared_blobs.clone(), options.synced)?);
        let parts = WriterParts {
            logs: logs.clone(),
            checkpointer,
            clock: options.clock.clone(),
            sync_delay: options.sync_delay,
        };
        Ok(Self {
            writer: WriterHandle::start(connection, parts)?,
            readers: Readers::new(database),
            logs,
            blobs,
            blob_files: tokio::sync::RwLock::default(),
            clock: options.clock.clone(),
            signals: broadcast::Sender::new(1),
            counters: Counters::default(),
            _lock: lock,
        })
    }

    /// Counts a command and the time it takes.
    async fn counted<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let start = Instant::now();
        let result = work.await;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.queries.fetch_add(1, Ordering::Relaxed);
        self.counters.micros.fetch_add(micros, Ordering::Relaxed);
        self.counters.errors.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
        result
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        kind: Kind,
        command: impl FnOnce(&mut Writer<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.counted(self.writer.call(kind, command)).await
    }

    /// The size of a blob that has a row and its file, and touches it.
    async fn touch_own_blob(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        let Some(size) = self.write(Kind::Other, move |writer| writer.touch_blob(digest)).await? else {
            return Ok(None);
        };
        let blobs = self.blobs.clone();
        Ok(blocking(move || blobs.is_there(digest, size)).await?.then_some(size))
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.counted(self.readers.read(read)).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<SubmitAnswer, StoreError> {
        self.write(Kind::Submit, move |writer| writer.submit(&jobs)).await
    }

    async fn claim(&self, claims: Vec<Claim>) -> Result<Vec<ClaimAnswer>, StoreError> {
        self.write(Kind::Claim, move |writer| writer.claim(&claims)).await
    }

    async fn finish(&self, results: Vec<Finish>) -> Result<Vec<FinishAnswer>, StoreError> {
        let (logs, mut results) = (self.logs.clone(), results);
        if results.iter().any(|finish| logs.has_file(&finish.result.fence, finish.result.output.as_ref())) {
            results = blocking(move || {
                for Finish { result } in &results {
                    if logs.has_file(&result.fence, result.output.as_ref()) {
                        logs.complete(&result.fence, result.output.as_ref())?;
                    }
                }
                Ok(results)
            })
            .await?;
        }
        self.write(Kind::Finish, move |writer| writer.finish(&results)).await
    }

    async fn renew(&self, renewals: Vec<Renewal>) -> Result<Vec<RenewAnswer>, StoreError> {
        self.write(Kind::Renew, move |writer| writer.renew(&renewals)).await
    }

    async fn give_back(&self, returns: Vec<Return>) -> Result<Vec<FinishAnswer>, StoreError> {
        self.write(Kind::Finish, move |writer| writer.give_back(&returns)).await
    }

    async fn cancel(
        &self,
        jobs: Vec<JobId>,
        pending_only: bool,
        reason: &str,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        let reason = reason.to_owned();
        self.write(Kind::Cancel, move |writer| writer.cancel(&jobs, pending_only, &reason)).await
    }

    async fn advance(&self, may_reclaim: bool, limit: u32) -> Result<Advanced, StoreError> {
        self.write(Kind::Sweep, move |writer| writer.advance(may_reclaim, limit as usize)).await
    }

    async fn delete_final(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let now = u32::try_from(u64::from(limit) - deleted).unwrap_or(limit).min(DELETE_AT_ONCE);
            let count = self.write(Kind::Sweep, move |writer| writer.delete_final(before, now)).await?;
            deleted += count;
            if deleted >= u64::from(limit) {
                break;
            }
            if count < u64::from(now) {
                if !self.write(Kind::Sweep, move |writer| writer.hide_run(before)).await? {
                    break;
                }
                deleted += 1;
            }
        }
        while self.write(Kind::Sweep, |writer| writer.empty_hidden_run()).await? {}
        Ok(deleted)
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.read(move |connection| query::job(connection, id)).await
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.read(move |connection| query::attempts(connection, id)).await
    }

    async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobRecord>, StoreError> {
        let query = query.clone();
        self.read(move |connection| query::jobs(connection, &query)).await
    }

    async fn stats(&self) -> Result<StatsView, StoreError> {
        self.write(Kind::Other, |writer| Ok(writer.index.stats())).await
    }

    async fn classes(&self, queue: &QueueName) -> Result<Vec<(RequirementClass, bool)>, StoreError> {
        let queue = queue.clone();
        self.write(Kind::Other, move |writer| Ok(writer.index.classes(&queue))).await
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseRecord>, StoreError> {
        let worker = worker.clone();
        self.write(Kind::Other, move |writer| writer.leases_of(&worker)).await
    }

    async fn lease_of(&self, job: JobId) -> Result<Option<LeaseRecord>, StoreError> {
        self.write(Kind::Other, move |writer| writer.lease_of(job)).await
    }

    async fn put_workers(&self, workers: Vec<WorkerRecord>) -> Result<(), StoreError> {
        self.write(Kind::Other, move |writer| writer.put_workers(&workers)).await
    }

    async fn workers(&self, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError> {
        self.read(move |connection| register::workers(connection, since)).await
    }

    async fn append_output(&self, fence: &Fence, chunk: OutputChunk) -> Result<AppendAnswer, StoreError> {
        let (logs, fence) = (self.logs.clone(), *fence);
        let answer = self.counted(blocking(move || logs.append(&fence, &chunk))).await?;
        failpoint::pass("output.after-append");
        Ok(answer)
    }

    async fn output(
        &self,
        job: JobId,
        attempt: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Option<OutputSlice>, StoreError> {
        let logs = self.logs.clone();
        self.read(move |connection| {
            if let Some(slice) = logs.read_live(job, attempt, offset, max_bytes)? {
                return Ok(Some(slice));
            }
            // It is forgotten as live only after its end is committed, so it is found here if it ever was.
            let Some(ended) = query::ended_output(connection, job, attempt)? else { return Ok(None) };
            Ok(Some(match ended.inline {
                Some(bytes) => read_inline(bytes, ended.end, offset, max_bytes),
                None => logs.read_sealed(job, attempt, ended.end, offset, max_bytes)?,
            }))
        })
        .await
    }

    async fn append_blob(&self, upload: Uuid, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        let (blobs, now) = (self.blobs.clone(), self.clock.now());
        self.counted(blocking(move || blobs.append(upload, offset, &bytes, now))).await
    }

    async fn finish_blob(&self, upload: Uuid, digest: Digest, size: u64) -> Result<(), StoreError> {
        // What is deleted and what is finished must not meet; what is finished beside each other shares its syncs.
        let _not_deleted = self.blob_files.read().await;
        let uploaded = self.blobs.uploaded(upload);
        let known = self.touch_own_blob(digest).await?;
        if uploaded.unwrap_or(0) != size && !(known.is_some() && uploaded.is_none()) {
            return Err(StoreError::UploadGap { end: uploaded.unwrap_or(0), offset: size });
        }
        let blobs = self.blobs.clone();
        if known.is_some() {
            return blocking(move || blobs.drop_upload(upload)).await;
        }
        blocking(move || blobs.keep(upload, digest)).await?;
        self.write(Kind::Other, move |writer| writer.put_blob(digest, size)).await
    }

    async fn drop_blob_upload(&self, upload: Uuid) -> Result<(), StoreError> {
        let blobs = self.blobs.clone();
        blocking(move || blobs.drop_upload(upload)).await
    }

    async fn touch_blob(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        let known = self.touch_own_blob(digest).await?;
        if known.is_some() || !self.blobs.is_shared() {
            return Ok(known);
        }
        let _not_deleted = self.blob_files.read().await;
        let blobs = self.blobs.clone();
        let taken = blocking(move || blobs.take_shared(digest)).await?;
        if let Some(size) = taken {
            self.write(Kind::Other, move |writer| writer.put_blob(digest, size)).await?;
        }
        Ok(taken)
    }

    async fn read_blob(&self, digest: Digest, offset: u64) -> Result<Option<Bytes>, StoreError> {
        let blobs = self.blobs.clone();
        self.counted(blocking(move || blobs.read(digest, offset))).await
    }

    async fn delete_blobs(&self, before: Timestamp) -> Result<u64, StoreError> {
        let _alone = self.blob_files.write().await;
        let forgotten = self.write(Kind::Sweep, move |writer| writer.forget_blobs(before)).await?;
        let (blobs, deleted) = (self.blobs.clone(), forgotten.len() as u64);
        let files = blocking(move || {
            forgotten.iter().try_for_each(|digest| blobs.delete(*digest))?;
            blobs.next_files()
        });
        let files = files.await?;
        let unnamed = self.read(move |connection| retention::without_row(connection, files)).await?;
        let blobs = self.blobs.clone();
        blocking(move || {
            unnamed.iter().try_for_each(|digest| blobs.delete(*digest))?;
            Ok(deleted + blobs.drop_uploads(before)?)
        })
        .await
    }

    async fn put_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.write(Kind::Other, move |writer| writer.put_token(&token)).await
    }

    async fn token_by_hash(&self, hash: Digest) -> Result<Option<TokenRecord>, StoreError> {
        let now = self.clock.now();
        self.read(move |connection| register::token_by_hash(connection, hash, now)).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.read(register::tokens).await
    }

    async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        self.write(Kind::Other, move |writer| writer.revoke_token(id)).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.write(Kind::Other, |writer| writer.ping()).await
    }

    fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }

    fn publish(&self, _signal: Signal) {}

    fn runs(&self) -> Option<&dyn RunStore> {
        Some(self)
    }

    fn counters(&self) -> StoreCounters {
        StoreCounters {
            queries: self.counters.queries.load(Ordering::Relaxed),
            errors: self.counters.errors.load(Ordering::Relaxed),
            query_micros: self.counters.micros.load(Ordering::Relaxed),
            connections: 1,
        }
    }
}
