//! How a worker is told to stop.

use tokio::sync::watch;

/// How far it is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    #[default]
    Run,
    Drain,
    EndJobs,
}

/// Tells a worker to stop. Dropped, it tells nothing.
#[derive(Clone, Debug)]
pub struct ShutdownHandle(watch::Sender<Stage>);

/// The worker's side.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stage>);

impl ShutdownHandle {
    /// A handle, and what to give to the worker.
    #[must_use]
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(Stage::Run);
        (Self(sender), Shutdown(receiver))
    }

    /// No new jobs; running ones finish, results are delivered, then it ends. The first SIGTERM.
    pub fn drain(&self) {
        self.raise(Stage::Drain);
    }

    /// Running jobs are ended as well; they are handed out again when their leases run out. The second SIGTERM.
    pub fn end_jobs(&self) {
        self.raise(Stage::EndJobs);
    }

    fn raise(&self, to: Stage) {
        self.0.send_if_modified(|stage| {
            let raised = to > *stage;
            *stage = (*stage).max(to);
            raised
        });
    }
}

impl Shutdown {
    /// Waits for the next stage; forever when there is nobody to tell it.
    pub(crate) async fn next(&mut self) -> Stage {
        if self.0.changed().await.is_err() {
            return std::future::pending().await;
        }
        *self.0.borrow_and_update()
    }

    /// A stage told before anybody waited counts, too.
    pub(crate) fn also_what_was_told(mut self) -> Self {
        self.0.mark_changed();
        self
    }
}
