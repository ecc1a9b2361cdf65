//! The store's clock as seen from here.

use std::time::Duration;

use executr_spec::Timestamp;
use executr_store::{Store, StoreError};
use tokio::time::Instant;

use crate::lock::Lock;

/// An estimate of the store's clock, good to a network round trip. For timers and texts only: what counts is decided in
/// the store, by its own clock.
#[derive(Debug)]
pub(crate) struct StoreClock(Lock<(Instant, Timestamp)>);

impl StoreClock {
    /// Asks the store what time it is.
    pub(crate) async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let now = store.now().await?;
        Ok(Self(Lock::new((Instant::now(), now))))
    }

    /// The store's clock shows `now`. Told again and again, because clocks drift.
    pub(crate) fn set(&self, now: Timestamp) {
        *self.0.hold() = (Instant::now(), now);
    }

    /// The store's time now.
    pub(crate) fn now(&self) -> Timestamp {
        let (instant, time) = *self.0.hold();
        time.plus(instant.elapsed())
    }

    /// When the store's clock will show `time`; now, when it has passed.
    pub(crate) fn instant(&self, time: Timestamp) -> Instant {
        // Far enough for a timer, near enough not to overflow one.
        Instant::now() + time.since(self.now()).min(Duration::from_secs(86_400))
    }
}
