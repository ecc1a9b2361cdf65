//! A mutex that a panic elsewhere doesn't spoil. Never held across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is kept behind it stays consistent between any two statements, so a poisoned lock is as good as any.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn hold(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
