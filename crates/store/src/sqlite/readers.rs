//! Reading on connections of its own, so that no look at jobs makes the writer wait, nor waits for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::connection;
use crate::StoreError;

/// So many reads go on at a time.
const READERS: usize = 4;

/// A pool of connections that can only read.
#[derive(Clone, Debug)]
pub(super) struct Readers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Pool { path, idle: Mutex::default(), permits: Arc::new(Semaphore::new(READERS)) }))
    }

    /// Reads, away from the threads that must not block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pool = self.0.clone();
        let permit = pool.permits.clone().acquire_owned().await;
        blocking(move || {
            let _permit = permit;
            let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => connection::for_reading(&pool.path)?,
            };
            let result = read(&connection);
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        })
        .await
    }
}

/// Runs something that waits for files.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Unavailable(format!("the store is stopping, or a fault of ours: {error}"))),
    }
}
