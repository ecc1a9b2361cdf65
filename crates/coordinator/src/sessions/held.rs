//! A lease that a worker holds, as far as it is known here.

use std::time::Duration;

use executr_api::RunContext;
use executr_spec::SpecJson;
use tokio::time::Instant;

/// A lease.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) spec: SpecJson,
    pub(super) part: Part,
    pub(super) cancelling: bool,
    /// Its worker is to hurry with that.
    pub(super) at_once: bool,
    pub(super) renewed: Instant,
    /// Its worker ends it by itself when it isn't renewed, and takes every exchange for a renewal.
    exclusive: bool,
}

/// What a lease has of a run.
#[derive(Debug)]
pub(super) enum Part {
    /// Nothing: its job stands alone.
    None,
    /// This.
    Known(Box<RunContext>),
    /// Something that was not read from the store: its worker had the lease already.
    Unread,
}

impl Held {
    pub(super) fn new(spec: SpecJson, part: Part, cancelling: bool, renewed: Instant) -> Self {
        // A word that can only stand there when the job is exclusive spares reading every job.
        let exclusive = spec.as_str().contains("\"exclusive\"") && spec.read().is_ok_and(|spec| spec.exclusive);
        Self { spec, part, cancelling, at_once: false, renewed, exclusive }
    }

    /// About how many bytes it takes to tell the worker of it.
    pub(super) fn bytes(&self) -> usize {
        let handed = match &self.part {
            Part::Known(run) => {
                let outputs = run.needs.values().flat_map(|need| &need.outputs);
                let jobs = run.workspace.iter().flat_map(|workspace| &workspace.jobs);
                outputs.map(|(key, value)| key.len() + value.len()).sum::<usize>()
                    + jobs.map(|job| job.name.len() + 16 * job.steps.len()).sum::<usize>()
            }
            Part::None | Part::Unread => 0,
        };
        self.spec.as_str().len() + handed
    }

    pub(super) fn is_due(&self, age: Duration) -> bool {
        self.exclusive || self.renewed.elapsed() >= age
    }
}
