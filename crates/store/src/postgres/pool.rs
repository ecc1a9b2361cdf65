//! Connections that are used by one unit of work after another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::address::Address;
use super::fault::Fault;
use super::session::Session;

/// So many connections at most, opened when they are needed first.
pub(super) struct Pool {
    room: Semaphore,
    idle: Mutex<Vec<Session>>,
    open: AtomicU64,
}

impl Pool {
    pub(super) fn new(connections: usize) -> Self {
        Self { room: Semaphore::new(connections), idle: Mutex::default(), open: AtomicU64::new(0) }
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// A connection of one's own, opened now if none is idle.
    pub(super) async fn check_out(&self, address: &Address) -> Result<CheckedOut<'_>, Fault> {
        let room = self.room.acquire().await.map_err(|_| Fault::Lost("the store is closed".to_owned()))?;
        let idle = loop {
            match self.lock_idle().pop() {
                Some(session) if session.is_clean() => break Some(session),
                Some(_) => drop(self.open.fetch_sub(1, Ordering::Relaxed)),
                None => break None,
            }
        };
        let session = match idle {
            Some(session) => session,
            None => {
                let session = Session::connect(address).await?;
                self.open.fetch_add(1, Ordering::Relaxed);
                session
            }
        };
        Ok(CheckedOut { pool: self, session: Some(session), is_done: false, _room: room })
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that goes back when it is dropped, unless a transaction was left open on it, or a statement: whoever
/// asked may have gone away in the middle of one, and the next would wait for its end.
pub(super) struct CheckedOut<'a> {
    pool: &'a Pool,
    session: Option<Session>,
    is_done: bool,
    _room: SemaphorePermit<'a>,
}

impl CheckedOut<'_> {
    pub(super) fn get(&mut self) -> &mut Session {
        self.session.as_mut().expect("it is taken only when dropped")
    }

    /// The work on it was carried out, or rolled back.
    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for CheckedOut<'_> {
    fn drop(&mut self) {
        match self.session.take() {
            Some(session) if self.is_done && session.is_clean() => self.pool.lock_idle().push(session),
            _ => drop(self.pool.open.fetch_sub(1, Ordering::Relaxed)),
        }
    }
}
