//! Which of several hosts takes the next job: in turn, those that work before those that don't, and none more than it
//! may.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// How long a host is left alone after it has failed, each time twice as long.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What is known of one.
#[derive(Clone, Copy, Debug, Default)]
struct Host {
    jobs: u32,
    /// Failures one after another.
    failures: u32,
    /// Until when it is left alone.
    resting_until: Option<Instant>,
}

impl Host {
    fn rests(&self, now: Instant) -> bool {
        self.resting_until.is_some_and(|until| until > now)
    }
}

/// Some hosts, by number.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    hosts: Vec<Host>,
    most: Option<NonZeroU32>,
    next: usize,
}

/// Who takes the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// This one, which has one more from now on.
    Host(usize),
    /// Nobody as long as none ends.
    Full,
    /// Nobody but those that were tried.
    NoOther,
}

impl Turns {
    /// `count` hosts, of which each takes `most` jobs at a time.
    pub(super) fn new(count: usize, most: Option<NonZeroU32>) -> Self {
        Self { hosts: vec![Host::default(); count], most, next: 0 }
    }

    /// Whose turn it is of those that `tried` doesn't hold. One that rests is asked only when all that don't were tried.
    pub(super) fn take(&mut self, tried: &[usize], now: Instant) -> Turn {
        let count = self.hosts.len();
        let order: Vec<_> =
            (0..count).map(|step| (self.next + step) % count).filter(|host| !tried.contains(host)).collect();
        if order.is_empty() {
            return Turn::NoOther;
        }
        let full = |host: &Host| self.most.is_some_and(|most| host.jobs >= most.get());
        let awake = || order.iter().copied().filter(|host| !self.hosts[*host].rests(now));
        let free = |host: &usize| !full(&self.hosts[*host]);
        let found = match awake().next() {
            Some(_) => awake().find(free),
            None => {
                let soonest = |host: &usize| self.hosts[*host].resting_until;
                order.iter().copied().filter(free).min_by_key(soonest)
            }
        };
        let Some(found) = found else { return Turn::Full };
        self.hosts[found].jobs += 1;
        self.next = (found + 1) % count;
        Turn::Host(found)
    }

    /// A job there has ended, however.
    pub(super) fn give_back(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        host.jobs = host.jobs.saturating_sub(1);
    }

    /// It can't be reached, or is lost.
    pub(super) fn failed(&mut self, host: usize, now: Instant) {
        let host = &mut self.hosts[host];
        let rest = FIRST_REST.saturating_mul(1 << host.failures.min(16)).min(LONGEST_REST);
        host.failures += 1;
        host.resting_until = Some(now + rest);
    }

    /// It answers.
    pub(super) fn works(&mut self, host: usize) {
        self.hosts[host] = Host { jobs: self.hosts[host].jobs, ..Host::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Instant {
        // The same beginning for all of a test.
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGIN.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    #[test]
    fn hosts_take_turns_and_none_takes_more_than_it_may() {
        let mut turns = Turns::new(3, NonZeroU32::new(2));
        let taken: Vec<_> = (0..7).map(|_| turns.take(&[], after(0))).collect();
        let host = Turn::Host;
        assert_eq!(taken, [host(0), host(1), host(2), host(0), host(1), host(2), Turn::Full]);
        turns.give_back(1);
        assert_eq!(turns.take(&[], after(0)), host(1));
        assert_eq!(turns.take(&[0, 1, 2], after(0)), Turn::NoOther);
    }

    #[test]
    fn a_host_that_failed_rests_longer_each_time_until_it_works() {
        let mut turns = Turns::new(2, None);
        turns.failed(0, after(0));
        assert_eq!([0; 3].map(|_| turns.take(&[], after(0))), [Turn::Host(1); 3]);
        assert_eq!(turns.take(&[], after(1)), Turn::Host(0), "its rest is over");
        turns.failed(0, after(1));
        assert_eq!(turns.take(&[], after(2)), Turn::Host(1));
        assert_eq!(turns.take(&[1], after(2)), Turn::Host(0), "nobody else is left");
        assert_eq!(turns.take(&[], after(3)), Turn::Host(1), "in turn");
        assert_eq!(turns.take(&[], after(3)), Turn::Host(0), "two seconds the second time");
        for _ in 0..40 {
            turns.failed(0, after(10));
        }
        assert_eq!([0; 2].map(|_| turns.take(&[], after(69))), [Turn::Host(1); 2]);
        assert_eq!(turns.take(&[], after(70)), Turn::Host(0), "a minute at most");
        turns.works(0);
        turns.failed(0, after(80));
        assert_eq!([0; 2].map(|_| turns.take(&[], after(80))), [Turn::Host(1); 2]);
        assert_eq!(turns.take(&[], after(81)), Turn::Host(0));
    }

    #[test]
    fn of_hosts_that_all_rest_the_one_that_rested_longest_is_asked() {
        let mut turns = Turns::new(2, None);
        turns.failed(1, after(0));
        turns.failed(1, after(0));
        turns.failed(0, after(0));
        assert_eq!(turns.take(&[], after(0)), Turn::Host(0));
    }
}
