//! Why a job waits, in words.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use executr_api::{JobState, WorkerHello};
use executr_spec::{JobSpec, Offers, QueueName, RequirementClass};
use executr_store::{JobRecord, WorkerRecord};

use crate::lock::Lock;

/// The workers there are at one moment, to say what of them a job lacks.
#[derive(Debug)]
pub(crate) struct WaitingFor {
    here: Vec<Arc<WorkerHello>>,
    elsewhere: Arc<Vec<WorkerRecord>>,
    /// Most jobs wait for the same.
    said: Lock<HashMap<(QueueName, RequirementClass), String>>,
}

impl WaitingFor {
    pub(crate) fn new(here: Vec<Arc<WorkerHello>>, elsewhere: Arc<Vec<WorkerRecord>>) -> Self {
        Self { here, elsewhere, said: Lock::default() }
    }

    /// Why this job waits; `None` when it doesn't.
    pub(crate) fn words(&self, record: &JobRecord, spec: &JobSpec) -> Option<String> {
        match record.state {
            JobState::Scheduled => {
                let due = record.due_at.map_or_else(|| "its time".to_owned(), |due| due.to_string());
                Some(if record.failures > 0 {
                    format!("its next attempt at {due}, after a failure")
                } else {
                    format!("its start at {due}")
                })
            }
            JobState::Blocked => {
                let (key, limit) = spec.concurrency().unwrap_or(("", 1));
                Some(format!("another job with the concurrency key `{key}` to end (limit {limit})"))
            }
            JobState::Ready => {
                let key = (record.queue.clone(), record.class.clone());
                Some(self.said.hold().entry(key).or_insert_with_key(|(queue, class)| self.worker(queue, class)).clone())
            }
            JobState::Running if record.reclaimable => {
                Some("its worker, not heard of for a lease, or any other that takes it over".to_owned())
            }
            JobState::Waiting => Some(needs(spec)),
            JobState::Running
            | JobState::Cancelling
            | JobState::Completed
            | JobState::Failed
            | JobState::Cancelled
            | JobState::Skipped => None,
        }
    }

    fn worker(&self, queue: &QueueName, class: &RequirementClass) -> String {
        let here = self.here.iter().map(|hello| (&hello.queues, &hello.offers));
        let elsewhere = self.elsewhere.iter().map(|record| (&record.queues, &record.offers));
        let serving: Vec<&Offers> = here
            .chain(elsewhere)
            .filter(|(queues, _)| queues.iter().any(|weight| weight.queue == *queue))
            .map(|(_, offers)| offers)
            .collect();
        if serving.is_empty() {
            return format!("an executor that serves the queue `{queue}`; none is there");
        }
        let requirements = class.requirements();
        if let Some(worker) = &requirements.worker {
            let there = serving.iter().any(|offers| offers.worker.as_ref() == Some(worker));
            let slot = if there { "a free slot of" } else { "to be heard of again, or given up:" };
            return format!("{slot} the executor {worker}, which holds its run's workspace");
        }
        let nearest =
            serving.iter().map(|offers| requirements.lacking(offers)).min_by_key(Vec::len).unwrap_or_default();
        if nearest.is_empty() {
            "a free slot".to_owned()
        } else {
            let lacking: BTreeSet<String> = nearest.into_iter().collect();
            let lacking: Vec<String> = lacking.into_iter().collect();
            format!("an executor with {}; none of those that serve the queue `{queue}` has it", lacking.join(", "))
        }
    }
}

/// So many needs of a job are named.
const NAMED: usize = 5;

fn needs(spec: &JobSpec) -> String {
    let needs: Vec<&str> =
        spec.workflow.iter().flat_map(|workflow| workflow.needs.keys()).map(String::as_str).collect();
    if needs.is_empty() {
        return "the decision whether it runs".to_owned();
    }
    let named = needs[..needs.len().min(NAMED)].join(", ");
    let more = needs.len().saturating_sub(NAMED);
    if more > 0 { format!("the jobs it needs: {named} and {more} more") } else { format!("the jobs it needs: {named}") }
}
