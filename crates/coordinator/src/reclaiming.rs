//! When a lease that ran out may be taken for lost: not before its holder has had a whole lease period to renew it.

use std::time::Duration;

use executr_spec::Timestamp;
use tokio::time::Instant;

/// How far apart the store is asked at most when all is well.
pub(crate) const AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// Decides from how the store answered lately. After a time without it, without this process, or left out by its clock,
/// no holder could renew, whatever the leases say; so all of them get one more period.
#[derive(Debug)]
pub(crate) struct Reclaiming {
    lease: Duration,
    from: Instant,
    /// When the store last answered, and what its clock showed.
    last: Option<(Instant, Timestamp)>,
}

impl Reclaiming {
    /// Starts with one lease period of patience: workers may only not have found this coordinator yet.
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, from: Instant::now() + lease, last: None }
    }

    /// From when on.
    pub(crate) fn from(&self) -> Instant {
        self.from
    }

    /// A delay or a difference between clocks that takes no holder's chance to renew.
    pub(crate) fn tolerance(&self) -> Duration {
        self.lease / 3
    }

    /// The store didn't answer.
    pub(crate) fn doubt(&mut self) {
        self.from = Instant::now() + self.lease;
    }

    /// The store was asked at `asked` and answers now that it is `time` there. Says whether leases may be reclaimed.
    pub(crate) fn heard(&mut self, asked: Instant, time: Timestamp) -> bool {
        let now = Instant::now();
        let tolerance = self.tolerance();
        let slow = now - asked > tolerance;
        let late = self.last.is_some_and(|(then, _)| now - then > AT_LEAST_EVERY + tolerance);
        let ahead = self.last.is_some_and(|(then, showed)| time.since(showed) > (now - then) + tolerance);
        if slow || late || ahead {
            tracing::warn!(
                slow,
                late,
                ahead,
                "the store was out of reach or its clock leapt; no lease is taken for lost for now"
            );
            self.doubt();
        }
        self.last = Some((now, time));
        now >= self.from
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const LEASE: Duration = Duration::from_secs(15);
    const SECOND: Duration = Duration::from_secs(1);

    /// Asks every second for so many of them; the store's clock is ahead by `ahead`.
    async fn hear(reclaiming: &mut Reclaiming, begin: Instant, seconds: u64, ahead: Duration) -> bool {
        let mut may = false;
        for _ in 0..seconds {
            sleep(SECOND).await;
            may = reclaiming.heard(Instant::now(), Timestamp(0).plus(begin.elapsed() + ahead));
        }
        may
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_period_passes_first() {
        let (begin, mut reclaiming) = (Instant::now(), Reclaiming::new(LEASE));
        assert!(!hear(&mut reclaiming, begin, 14, Duration::ZERO).await);
        assert!(hear(&mut reclaiming, begin, 1, Duration::ZERO).await);
        assert!(hear(&mut reclaiming, begin, 100, Duration::ZERO).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_passes_after_an_error_a_silence_a_slow_answer_and_a_leap_of_the_clock() {
        let (begin, mut reclaiming) = (Instant::now(), Reclaiming::new(LEASE));
        assert!(hear(&mut reclaiming, begin, 20, Duration::ZERO).await);
        reclaiming.doubt();
        assert!(!hear(&mut reclaiming, begin, 14, Duration::ZERO).await);
        assert!(hear(&mut reclaiming, begin, 1, Duration::ZERO).await);

        sleep(LEASE).await;
        assert!(!hear(&mut reclaiming, begin, 15, Duration::ZERO).await);
        assert!(hear(&mut reclaiming, begin, 1, Duration::ZERO).await);

        let asked = Instant::now();
        sleep(Duration::from_secs(6)).await;
        assert!(!reclaiming.heard(asked, Timestamp(0).plus(begin.elapsed())));
        assert!(hear(&mut reclaiming, begin, 15, Duration::ZERO).await);

        let hour = Duration::from_secs(3_600);
        assert!(!hear(&mut reclaiming, begin, 15, hour).await);
        assert!(hear(&mut reclaiming, begin, 1, hour).await);
    }
}
