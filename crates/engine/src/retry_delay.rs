//! How long to wait before the coordinator is asked again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles from 0.1 s to 5 s; each wait is a random part of that, at least half, so that a thousand workers don't come
/// back in step.
#[derive(Clone, Debug, Default)]
pub struct RetryDelay {
    failures: u32,
    random: RandomState,
}

impl RetryDelay {
    /// Whether the last call failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Notes a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure; says how long to wait.
    pub fn next_delay(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // The keys of `RandomState` are random: all that is asked for here.
        let mut hasher = self.random.build_hasher();
        hasher.write_u32(self.failures);
        let part = (hasher.finish() % 1_000) as u32;
        full / 2 + full / 2 * part / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_bounds_and_start_anew() {
        let mut delay = RetryDelay::default();
        let mut longest = Duration::ZERO;
        for count in 0..100 {
            let wait = delay.next_delay();
            assert!(wait >= FIRST / 2 && wait <= LONGEST, "{count}: {wait:?}");
            longest = longest.max(wait);
        }
        assert!(longest >= LONGEST / 2 && delay.is_failing());
        delay.reset();
        assert!(delay.next_delay() <= FIRST);
    }
}
