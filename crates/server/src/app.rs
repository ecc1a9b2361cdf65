//! What all requests share.

use std::sync::Arc;

use executr_coordinator::Coordinator;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::options::Limits;

/// What all requests share.
pub(crate) struct App {
    pub(crate) coordinator: Coordinator,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) allow_anonymous: bool,
    /// Whether it listens on loopback.
    pub(crate) on_loopback: bool,
    /// Cancelled when the server is told to stop: whoever waits answers with what is known.
    pub(crate) stopping: CancellationToken,
    /// What goes on beside requests and is waited for at the end.
    pub(crate) tracker: TaskTracker,
    /// The bytes of bulk bodies that may be in memory together, in [`BULK_UNIT`]s.
    pub(crate) bulk: Arc<Semaphore>,
    /// The OpenAPI document, as it is served.
    pub(crate) openapi: bytes::Bytes,
}

/// The unit in which bulk bodies are counted, in bytes.
pub(crate) const BULK_UNIT: usize = 1_024;

/// How handlers hold it.
pub(crate) type Shared = Arc<App>;
