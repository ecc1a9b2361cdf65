//! Natural batching: what arrives while batches are in the store goes as the next batch. No timers.
//!
//! Two batches may fly at a time: while one waits for its commit the next is carried out, and what follows from the one
//! is done while the other waits. More would only make batches smaller.

use std::collections::VecDeque;

use crate::lock::Lock;

/// So many batches fly at a time.
const FLIGHTS: usize = 2;

/// Things that wait for a flight before them to land.
#[derive(Debug)]
pub(crate) struct Gather<T>(Lock<State<T>>);

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    flying: usize,
}

/// Whoever holds it flies batch after batch. Dropped early (by a panic) by the last who flies it lets what waits go, whose
/// askers then see their answer's sender gone, and the next push starts anew.
#[derive(Debug)]
pub(crate) struct Pilot<'a, T>(&'a Gather<T>);

impl<T> Gather<T> {
    pub(crate) fn new() -> Self {
        Self(Lock::new(State { waiting: VecDeque::new(), flying: 0 }))
    }

    /// Adds one thing. True when one more may fly: then the caller has to start somebody who calls [`board`](Self::board).
    pub(crate) fn push(&self, thing: T) -> bool {
        let mut state = self.0.hold();
        state.waiting.push_back(thing);
        let one_more = state.flying < FLIGHTS;
        state.flying += usize::from(one_more);
        one_more
    }

    /// Becomes one who flies.
    pub(crate) fn board(&self) -> Pilot<'_, T> {
        Pilot(self)
    }
}

impl<T> Pilot<'_, T> {
    /// The next batch: as many things as weigh `most` together, at least one. `None` ends the flights.
    pub(crate) fn next(&mut self, most: usize, weight: impl Fn(&T) -> usize) -> Option<Vec<T>> {
        let mut state = self.0.0.hold();
        let mut batch = Vec::new();
        let mut sum = 0;
        while let Some(thing) = state.waiting.front() {
            sum += weight(thing);
            if sum > most && !batch.is_empty() {
                break;
            }
            batch.extend(state.waiting.pop_front());
        }
        if batch.is_empty() {
            state.flying -= 1;
            return None;
        }
        Some(batch)
    }
}

impl<T> Drop for Pilot<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.0.hold();
        // After a regular end somebody else may fly by now.
        if std::thread::panicking() {
            state.flying -= 1;
            if state.flying == 0 {
                state.waiting.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_pushes_start_flights_and_the_rest_gathers() {
        let gather = Gather::new();
        assert!(gather.push(1));
        let mut first = gather.board();
        assert_eq!(first.next(10, |_| 1), Some(vec![1]));
        assert!(gather.push(2));
        let mut second = gather.board();
        assert_eq!(second.next(10, |_| 1), Some(vec![2]));
        assert!(!gather.push(3));
        assert!(!gather.push(4));
        assert_eq!(first.next(10, |_| 1), Some(vec![3, 4]));
        assert_eq!(second.next(10, |_| 1), None);
        assert!(gather.push(5), "there is room for one more");
        assert_eq!(first.next(10, |_| 1), Some(vec![5]));
    }

    #[test]
    fn a_batch_ends_where_it_would_get_too_heavy_and_is_never_empty() {
        let gather = Gather::new();
        for weight in [20, 4, 4, 4] {
            gather.push(weight);
        }
        let mut pilot = gather.board();
        assert_eq!(pilot.next(10, |weight| *weight), Some(vec![20]));
        assert_eq!(pilot.next(10, |weight| *weight), Some(vec![4, 4]));
        assert_eq!(pilot.next(10, |weight| *weight), Some(vec![4]));
    }

    #[test]
    fn a_flight_that_panics_does_not_ground_the_next() {
        let gather = Gather::new();
        assert!(gather.push(1));
        let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _pilot = gather.board();
            panic!("on purpose");
        }));
        assert!(crashed.is_err());
        assert!(gather.push(2), "a new flight is needed");
    }
}
