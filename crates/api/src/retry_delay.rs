//! How long to wait before what failed is tried again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// Waiting times that double from `first` to `longest`. Each is shortened by a random part of up to a half, so that a
/// thousand who lost the same server don't come back in step.
///
/// This is how Executr waits for its own servers and databases. How often and how far apart jobs are repeated is their
/// owners' wish, kept to the letter: `executr_spec::Backoff`.
#[derive(Clone, Copy, Debug)]
pub struct RetryDelay {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl RetryDelay {
    /// Between these.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Whether what was tried last failed.
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
        let whole = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        // The keys of each `RandomState` differ from all before: enough of a die.
        let die = RandomState::new().hash_one(self.failures) % 1_024;
        whole - whole.mul_f64(die as f64 / 2_048.0)
    }
}

impl Default for RetryDelay {
    /// From 0.1 s to 5 s: for those who go on until they succeed.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_stay_between_half_and_whole() {
        let mut delay = RetryDelay::new(Duration::from_millis(100), Duration::from_millis(350));
        assert!(!delay.is_failing());
        for whole in [100, 200, 350, 350] {
            let (wait, whole) = (delay.next_delay(), Duration::from_millis(whole));
            assert!(wait <= whole && wait >= whole / 2, "{wait:?} of {whole:?}");
        }
        assert!(delay.is_failing());
        delay.reset();
        assert!(!delay.is_failing() && delay.next_delay() <= Duration::from_millis(100));
    }

    #[test]
    fn it_can_fail_for_ever_and_two_differ() {
        let mut two = [RetryDelay::default(); 2];
        let waits: Vec<_> = (0..100).map(|_| two.each_mut().map(RetryDelay::next_delay)).collect();
        assert!(waits.iter().all(|[one, _]| *one <= Duration::from_secs(5)));
        assert!(waits.iter().any(|[one, other]| one != other));
    }
}
