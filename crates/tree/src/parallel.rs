//! Work shared out over the processors.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// How many threads a command of this crate uses at most: beyond, they wait for one disk.
const MOST: usize = 8;

/// As many threads as there are processors, at most [`MOST`].
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MOST)
}

/// Does `work` on every item, each thread with a state of its own; the first error ends it. Results stand in the order of
/// the items.
pub(crate) fn for_each<T: Sync, S, R: Send, E: Send>(
    items: &[T],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = threads().min(items.len());
    if threads <= 1 {
        let mut state = state();
        return items.iter().map(|item| work(&mut state, item)).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let error: Mutex<Option<E>> = Mutex::new(None);
    let run = || {
        let mut state = state();
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            match work(&mut state, item) {
                Ok(result) => done.push((index, result)),
                Err(first) => {
                    failed.store(true, Ordering::Relaxed);
                    error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(first);
                }
            }
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut done = run();
        for other in others {
            match other.join() {
                Ok(results) => done.extend(results),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    if let Some(error) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Does `work` on every item, and on those that it finds on the way and puts in the list it is given, each thread with a
/// state of its own; the first error ends it. The states come back.
pub(crate) fn explore<T: Send, S: Send, E: Send>(
    first: Vec<T>,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T, &mut Vec<T>) -> Result<(), E> + Sync,
) -> Result<Vec<S>, E> {
    struct Shared<T, E> {
        items: Vec<T>,
        /// Items that are taken or waiting.
        open: usize,
        error: Option<E>,
    }
    let open = first.len();
    let shared = Mutex::new(Shared { items: first, open, error: None });
    let changed = Condvar::new();
    let run = || {
        let mut state = state();
        let mut found = Vec::new();
        let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if held.open == 0 || held.error.is_some() {
                changed.notify_all();
                return state;
            }
            let Some(item) = held.items.pop() else {
                held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(held);
            let worked = work(&mut state, item, &mut found);
            held = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = worked {
                held.error.get_or_insert(error);
            }
            held.open += found.len();
            held.open -= 1;
            held.items.append(&mut found);
            // One of the items is for this thread itself.
            if held.open == 0 || held.error.is_some() || held.items.len() > 1 {
                changed.notify_all();
            }
        }
    };
    let states = thread::scope(|scope| {
        let others: Vec<_> = (1..threads()).map(|_| scope.spawn(run)).collect();
        let mut states = vec![run()];
        for other in others {
            match other.join() {
                Ok(state) => states.push(state),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        states
    });
    match shared.into_inner().unwrap_or_else(PoisonError::into_inner).error {
        Some(error) => Err(error),
        None => Ok(states),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_done_in_order_or_the_error_comes_back() {
        let items: Vec<usize> = (0..1_000).collect();
        let doubled: Result<_, ()> = for_each(&items, || (), |(), item| Ok(item * 2));
        assert_eq!(doubled.unwrap(), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        let failed = for_each(&items, || (), |(), item| if *item == 500 { Err("no") } else { Ok(()) });
        assert_eq!(failed, Err("no"));
        assert_eq!(for_each(&[] as &[usize], || (), |(), _| Ok::<_, ()>(())), Ok(vec![]));
    }

    #[test]
    fn what_is_found_on_the_way_is_done_too() {
        let split = |sum: &mut u64, item: u64, found: &mut Vec<u64>| {
            *sum += 1;
            found.extend([item / 2, item / 2].iter().filter(|half| **half > 0));
            if item == 99 { Err("no") } else { Ok(()) }
        };
        let sums = explore(vec![64], || 0, split).unwrap();
        assert_eq!(sums.iter().sum::<u64>(), 127);
        assert_eq!(explore(vec![1, 198], || 0, split), Err("no"));
        assert_eq!(explore(vec![], || 0, split).unwrap().iter().sum::<u64>(), 0);
    }
}
