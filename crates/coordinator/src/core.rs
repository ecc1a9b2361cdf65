//! What all parts of the coordinator share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executr_api::ApiError;
use executr_spec::{JobId, RunId};
use executr_store::{Readied, Signal, Store, StoreError};
use uuid::Uuid;

use crate::clock::StoreClock;
use crate::consoles::Consoles;
use crate::draw::Draw;
use crate::fleet::Fleet;
use crate::flight::Wish;
use crate::gather::Gather;
use crate::observer::Observer;
use crate::options::Options;
use crate::output::Shortened;
use crate::ready::Ready;
use crate::refusal;
use crate::runs::Outlines;
use crate::sessions::Sessions;
use crate::submission::Submitting;
use crate::sweep::Alarm;
use crate::tokens::TokenCache;
use crate::watches::Watches;

/// The one state behind all handles and background work.
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: Options,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: StoreClock,
    pub(crate) draw: Draw,
    pub(crate) ready: Arc<Ready>,
    pub(crate) sessions: Sessions,
    pub(crate) fleet: Fleet,
    pub(crate) watches: Arc<Watches>,
    pub(crate) run_watches: Arc<Watches<RunId>>,
    pub(crate) outlines: Outlines,
    /// Jobs that the store asks about.
    pub(crate) asked: Gather<JobId>,
    pub(crate) wishes: Gather<Wish>,
    pub(crate) submissions: Gather<Submitting>,
    pub(crate) alarm: Alarm,
    pub(crate) tokens: TokenCache,
    pub(crate) shortened: Shortened,
    pub(crate) consoles: Consoles,
    stopping: AtomicBool,
}

impl Core {
    pub(crate) async fn new(
        store: Arc<dyn Store>,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StoreError> {
        let clock = StoreClock::read(&*store).await?;
        let seed = options.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
        Ok(Self {
            clock,
            draw: Draw::new(seed),
            ready: Arc::default(),
            sessions: Sessions::default(),
            fleet: Fleet::default(),
            watches: Arc::default(),
            run_watches: Arc::default(),
            outlines: Outlines::default(),
            asked: Gather::new(),
            wishes: Gather::new(),
            submissions: Gather::new(),
            alarm: Alarm::default(),
            tokens: TokenCache::default(),
            shortened: Shortened::default(),
            consoles: Consoles::default(),
            stopping: AtomicBool::new(false),
            store,
            options,
            observer,
        })
    }

    /// Jobs became ready: whoever can run them is told, here and elsewhere.
    pub(crate) fn readied(&self, readied: &[Readied]) {
        for Readied { queue, class, jobs } in readied {
            self.ready.set(queue, class, *jobs);
            self.store.publish(Signal::Ready(queue.clone(), class.clone()));
        }
    }

    /// An attempt of the job began: whoever follows its output is told, here and elsewhere.
    pub(crate) fn began(&self, job: JobId) {
        self.watches.output(job);
        self.store.publish(Signal::Changed(job));
    }

    /// An attempt of the job ended, or all of it: whoever waits for it is told, here and elsewhere.
    pub(crate) fn changed(&self, job: JobId) {
        self.watches.changed(job);
        self.store.publish(Signal::Changed(job));
    }

    /// Whether it takes no more work.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Takes no more work, and lets everybody who waits look up.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        for session in self.sessions.all() {
            session.ring();
        }
        self.watches.all();
        self.run_watches.all();
    }

    pub(crate) fn refuse_when_stopping(&self) -> Result<(), ApiError> {
        if self.is_stopping() { Err(refusal::stopping()) } else { Ok(()) }
    }
}
