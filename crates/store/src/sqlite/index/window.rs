//! The oldest jobs of a bucket's part of the ready set, so that most claims need not look them up.

use std::collections::VecDeque;

/// The most submission numbers kept; what is beyond is looked up when these are gone.
pub(crate) const WINDOW: usize = 128;

/// The smallest numbers of a set that is kept elsewhere, and how many it has in all.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The smallest ones, ascending. All others are larger than the last.
    numbers: VecDeque<i64>,
    total: u64,
}

impl Window {
    /// A set of `total` numbers, none of them known yet.
    pub(crate) fn of(total: u64) -> Self {
        Self { numbers: VecDeque::new(), total }
    }

    /// How many the whole set has.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The smallest, or `None` when the set is empty or [`refill`](Self::refill) is due.
    pub(crate) fn first(&self) -> Option<i64> {
        self.numbers.front().copied()
    }

    /// Whether the smallest must be looked up.
    pub(crate) fn is_dry(&self) -> bool {
        self.numbers.is_empty() && self.total > 0
    }

    /// Takes the smallest numbers of the set, ascending, at most [`WINDOW`].
    pub(crate) fn refill(&mut self, numbers: impl IntoIterator<Item = i64>) {
        self.numbers.clear();
        self.numbers.extend(numbers);
    }

    /// The set has one more.
    pub(crate) fn insert(&mut self, number: i64) {
        let complete = self.numbers.len() as u64 == self.total;
        self.total += 1;
        if complete || self.numbers.back().is_some_and(|last| number < *last) {
            let at = self.numbers.partition_point(|known| *known < number);
            self.numbers.insert(at, number);
            self.numbers.truncate(WINDOW);
        }
    }

    /// The set has one fewer.
    pub(crate) fn remove(&mut self, number: i64) {
        self.total -= 1;
        if let Ok(at) = self.numbers.binary_search(&number) {
            self.numbers.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_smallest_is_always_known_or_known_to_be_unknown() {
        let mut all = BTreeSet::new();
        let mut window = Window::default();
        // A fixed walk that inserts and removes in every order.
        let mut random: u64 = 7;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 33) as i64 % 1_000;
            if (random >> 20) % 100 < 52 {
                if all.insert(number) {
                    window.insert(number);
                }
            } else if (random >> 20) % 100 < 70 {
                if all.remove(&number) {
                    window.remove(number);
                }
            } else {
                if window.is_dry() {
                    window.refill(all.iter().copied().take(WINDOW));
                }
                assert_eq!(window.first(), all.first().copied());
                if let Some(first) = all.pop_first() {
                    window.remove(first);
                }
            }
            assert_eq!(window.total(), all.len() as u64);
        }
    }
}
