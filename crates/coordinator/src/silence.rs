//! Which workers are lost, as far as their workspaces are concerned: not heard of for long, though they could have been.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use executr_spec::{Timestamp, WorkerId};
use tokio::time::Instant;

/// Workers that were found silent, each since when or (`None`) given up already.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since: HashMap<WorkerId, Option<Instant>>,
    /// Whether those were looked at that fell silent before anybody looked here.
    looked_back: bool,
}

impl Silence {
    /// From when on workers have to be looked at, when it is `now` in the store and `usual` is far enough back otherwise.
    pub(crate) fn look_from(&self, now: Timestamp, usual: Duration) -> Timestamp {
        if self.looked_back { now.minus(usual) } else { Timestamp(0) }
    }

    /// The store was out of reach, and so perhaps for workers: all get their time again.
    pub(crate) fn doubt(&mut self) {
        *self = Self::default();
    }

    /// These workers were heard of lately, and these were not. Returns those that are lost now: silent for `patience` by this
    /// process's own observation, so that a restart, or a database that was away, loses nobody.
    pub(crate) fn heard<'a>(
        &mut self,
        there: impl Iterator<Item = &'a WorkerId>,
        silent: impl Iterator<Item = &'a WorkerId>,
        patience: Duration,
    ) -> Vec<WorkerId> {
        self.looked_back = true;
        for worker in there {
            self.since.remove(worker);
        }
        let mut seen = HashSet::new();
        for worker in silent {
            self.since.entry(worker.clone()).or_insert_with(|| Some(Instant::now()));
            seen.insert(worker);
        }
        let mut lost = Vec::new();
        for (worker, since) in &mut self.since {
            if since.is_some_and(|since| since.elapsed() >= patience) {
                *since = None;
                lost.push(worker.clone());
            }
        }
        // Those that were given up and are not looked at any more are over.
        self.since.retain(|worker, since| since.is_some() || seen.contains(worker));
        lost.sort_unstable();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    fn id(name: &str) -> WorkerId {
        WorkerId(name.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_lost_once_and_after_its_time() {
        let (a, b) = (id("a"), id("b"));
        let mut silence = Silence::default();
        assert!(silence.heard([&a].into_iter(), [&b].into_iter(), PATIENCE).is_empty());
        tokio::time::advance(PATIENCE).await;
        assert_eq!(silence.heard([].into_iter(), [&a, &b].into_iter(), PATIENCE), [id("b")]);
        assert!(silence.heard([].into_iter(), [&a, &b].into_iter(), PATIENCE).is_empty());
        tokio::time::advance(PATIENCE).await;
        assert!(silence.heard([&a].into_iter(), [&b].into_iter(), PATIENCE).is_empty(), "a came back, b is over");
        silence.heard([].into_iter(), [&b].into_iter(), PATIENCE);
        assert!(silence.since.contains_key(&b) && !silence.since.contains_key(&a));
        silence.heard([].into_iter(), [].into_iter(), PATIENCE);
        assert!(silence.since.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_time_without_the_store_everybody_has_time_again() {
        let a = id("a");
        let mut silence = Silence::default();
        let now = Timestamp(0).plus(Duration::from_secs(1_000));
        assert_eq!(silence.look_from(now, PATIENCE), Timestamp(0));
        silence.heard([].into_iter(), [&a].into_iter(), PATIENCE);
        assert_eq!(silence.look_from(now, PATIENCE), now.minus(PATIENCE));
        tokio::time::advance(PATIENCE).await;
        silence.doubt();
        assert_eq!(silence.look_from(now, PATIENCE), Timestamp(0));
        assert!(silence.heard([].into_iter(), [&a].into_iter(), PATIENCE).is_empty());
        tokio::time::advance(PATIENCE).await;
        assert_eq!(silence.heard([].into_iter(), [&a].into_iter(), PATIENCE), [a]);
    }
}
