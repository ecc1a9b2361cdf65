//! Who waits for which job, or run.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use executr_spec::JobId;
use tokio::sync::watch;

use crate::lock::Lock;

/// The jobs (or runs) that somebody waits for. Telling about any other costs one look-up.
#[derive(Debug)]
pub(crate) struct Watches<K: Copy + Eq + Hash = JobId>(Lock<HashMap<K, Watched>>);

impl<K: Copy + Eq + Hash> Default for Watches<K> {
    fn default() -> Self {
        Self(Lock::new(HashMap::new()))
    }
}

#[derive(Debug)]
struct Watched {
    watchers: usize,
    changed: watch::Sender<()>,
    output: watch::Sender<()>,
}

/// Hears of one job (or run) until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch<K: Copy + Eq + Hash = JobId> {
    job: K,
    changed: watch::Receiver<()>,
    output: watch::Receiver<()>,
    watches: Arc<Watches<K>>,
}

impl<K: Copy + Eq + Hash> Watches<K> {
    /// Begins to watch. What happens from now on is heard, so look at the job after this.
    pub(crate) fn watch(self: &Arc<Self>, job: K) -> Watch<K> {
        let mut jobs = self.0.hold();
        let watched = jobs.entry(job).or_insert_with(|| Watched {
            watchers: 0,
            changed: watch::Sender::new(()),
            output: watch::Sender::new(()),
        });
        watched.watchers += 1;
        Watch {
            job,
            changed: watched.changed.subscribe(),
            output: watched.output.subscribe(),
            watches: Arc::clone(self),
        }
    }

    /// An attempt of the job ended, or all of it; or events of the run were written.
    pub(crate) fn changed(&self, job: K) {
        if let Some(watched) = self.0.hold().get(&job) {
            watched.changed.send_replace(());
        }
    }

    /// Output of the job was appended, or will be: an attempt began.
    pub(crate) fn output(&self, job: K) {
        if let Some(watched) = self.0.hold().get(&job) {
            watched.output.send_replace(());
        }
    }

    /// Anything may have happened to any job.
    pub(crate) fn all(&self) {
        for watched in self.0.hold().values() {
            watched.changed.send_replace(());
        }
    }
}

impl<K: Copy + Eq + Hash> Watch<K> {
    /// Returns when the job changed since the last call (or since the watch began).
    pub(crate) async fn changed(&mut self) {
        // The sender lives as long as the watch.
        let _ = self.changed.changed().await;
    }

    /// The same, also for output.
    pub(crate) async fn changed_or_output(&mut self) {
        tokio::select! {
            _ = self.changed.changed() => {}
            _ = self.output.changed() => {}
        }
    }
}

impl<K: Copy + Eq + Hash> Drop for Watch<K> {
    fn drop(&mut self) {
        let mut jobs = self.watches.0.hold();
        if let Some(watched) = jobs.get_mut(&self.job) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                jobs.remove(&self.job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_watch_hears_what_happened_before_it_was_asked_and_each_thing_once() {
        let watches = Arc::new(Watches::default());
        let job = JobId(Uuid::nil());
        let mut watch = watches.watch(job);
        assert!(watch.changed().now_or_never().is_none());
        watches.changed(job);
        assert!(watch.changed().now_or_never().is_some());
        assert!(watch.changed().now_or_never().is_none());
        watches.output(job);
        assert!(watch.changed().now_or_never().is_none());
        assert!(watch.changed_or_output().now_or_never().is_some());
        drop(watch);
        assert!(watches.0.hold().is_empty());
    }
}
