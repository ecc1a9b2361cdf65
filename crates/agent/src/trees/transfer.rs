//! A thread for each transfer, and the pieces between it and the caller's stream.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Pieces between a caller's stream and a transfer's thread: a mebibyte.
pub(crate) const AHEAD: usize = 4;

/// Bytes of stack of a transfer's thread: its buffers are elsewhere.
const STACK: usize = 256 << 10;

/// Does something on a thread of its own: transfers last as long as their callers are slow, and must not keep each other
/// from the threads that quick calls share. `None` when there is no thread to be had, or it broke off.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("transfer".to_owned()).stack_size(STACK);
    // Who doesn't wait any more has no use for an answer.
    thread.spawn(move || drop(answer.send(work()))).ok()?;
    answered.await.ok()
}

/// Tells a transfer to stop when its caller is gone.
#[derive(Default)]
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The pieces that a caller sends.
pub(crate) struct Pieces(pub(crate) mpsc::Receiver<Bytes>);

impl Pieces {
    /// The next one; `None` when the caller's stream is over.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        Ok(self.0.blocking_recv())
    }
}
