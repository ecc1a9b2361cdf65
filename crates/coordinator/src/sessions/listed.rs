//! What a report lists.

use std::collections::HashSet;

use executr_api::{Fence, Report};

/// What a report lists, for quick looking up.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// The leases that the worker has.
    pub(super) held: HashSet<Fence>,
    /// Those that are over with this report.
    pub(super) gone: HashSet<Fence>,
}

impl Listed {
    /// Whether the worker knows of the lease.
    pub(crate) fn has(&self, fence: &Fence) -> bool {
        self.held.contains(fence) || self.gone.contains(fence)
    }

    pub(crate) fn of(report: &Report) -> Self {
        Self {
            held: report.held.iter().copied().collect(),
            gone: report.finished.iter().map(|result| result.fence).chain(report.returned.iter().copied()).collect(),
        }
    }
}
