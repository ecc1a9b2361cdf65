//! What an open exchange waits on.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Rings one exchange. A ring before it listens is not lost.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    notify: Notify,
    superseded: AtomicBool,
}

impl Bell {
    /// There is something to look at.
    pub(crate) fn ring(&self) {
        self.notify.notify_one();
    }

    /// A later report of the same worker is here: return at once.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether a later report is here.
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }

    /// Returns when it was rung since the last time this returned.
    pub(crate) async fn listen(&self) {
        self.notify.notified().await;
    }

    /// Whether it was rung since the last time.
    #[cfg(test)]
    pub(crate) fn take_ring(&self) -> bool {
        futures_util::FutureExt::now_or_never(self.notify.notified()).is_some()
    }
}
