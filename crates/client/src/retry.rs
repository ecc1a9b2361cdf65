//! How long to wait before a call is sent again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waiting times that double from `first` to `most`, each shortened by a random part of up to a half, so that many
/// clients that lost the same server don't come back together.
#[derive(Debug)]
pub(crate) struct Waits {
    next: Duration,
    most: Duration,
}

impl Waits {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// The next waiting time.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.next.min(self.most);
        self.next = whole.saturating_mul(2);
        // The keys of a new RandomState differ from all before: enough of a die for jitter.
        let die = RandomState::new().hash_one(0_u8) % 1_024;
        whole - whole.mul_f64(die as f64 / 2_048.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_stay_between_half_and_whole() {
        let mut waits = Waits::new(Duration::from_millis(100), Duration::from_millis(350));
        for whole in [100, 200, 350, 350] {
            let wait = waits.next();
            let whole = Duration::from_millis(whole);
            assert!(wait <= whole && wait >= whole / 2, "{wait:?} of {whole:?}");
        }
    }
}
