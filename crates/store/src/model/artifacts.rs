//! The artifacts that jobs of runs made, and the blobs kept for them.

use std::collections::BTreeSet;

use executr_api::Artifact;
use executr_spec::{Digest, JobId, RunId, Tenant, Timestamp};

use super::queue::Queue;
use super::run::Place;
use crate::ArtifactRecord;

/// Which artifact; newest run first, then by place and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ArtifactKey {
    run: std::cmp::Reverse<u64>,
    index: u32,
    name: String,
}

impl ArtifactKey {
    fn new(place: Place, name: &str) -> Self {
        Self { run: std::cmp::Reverse(place.run), index: place.index, name: name.to_owned() }
    }

    fn place(&self) -> Place {
        Place { run: self.run.0, index: self.index }
    }
}

/// Each name once, in order; the last of a name counts.
pub(super) fn by_name(artifacts: Vec<Artifact>) -> impl Iterator<Item = Artifact> {
    artifacts
        .into_iter()
        .map(|artifact| (artifact.name.clone(), artifact))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into_values()
}

impl Queue {
    /// Records an artifact.
    pub(super) fn keep(&mut self, place: Place, artifact: Artifact, now: Timestamp) {
        let run = &self.runs[&place.run];
        let record = ArtifactRecord {
            tenant: run.new.tenant.clone(),
            run: run.new.id,
            run_name: run.new.name.clone(),
            job: run.job(place.index).name.clone(),
            artifact,
            created_at: now,
        };
        self.artifacts.insert(ArtifactKey::new(place, &record.artifact.name), record);
    }

    pub(super) fn artifacts_at(&self, place: Place) -> impl Iterator<Item = &Artifact> {
        let here = self.artifacts.iter().filter(move |(key, _)| key.place() == place);
        here.map(|(_, record)| &record.artifact)
    }

    pub(super) fn artifact(&self, place: Place, name: &str) -> Option<&Artifact> {
        self.artifacts.get(&ArtifactKey::new(place, name)).map(|record| &record.artifact)
    }

    pub(super) fn list_artifacts(&self, tenant: Option<&Tenant>, run: Option<RunId>) -> Vec<ArtifactRecord> {
        let wanted = |record: &&ArtifactRecord| {
            tenant.is_none_or(|tenant| record.tenant == *tenant) && run.is_none_or(|run| record.run == run)
        };
        self.artifacts.values().filter(wanted).cloned().collect()
    }

    pub(super) fn delete_artifacts(&mut self, before: Timestamp, limit: usize) -> u64 {
        let is_final = |run: u64| self.runs.get(&run).is_none_or(|run| run.state.is_final());
        let mut old: Vec<_> = self
            .artifacts
            .iter()
            .filter(|(key, record)| record.created_at < before && is_final(key.run.0))
            .map(|(key, record)| (record.created_at, key.run.0, key.clone()))
            .collect();
        old.sort();
        old.truncate(limit);
        for (.., key) in &old {
            self.artifacts.remove(key);
        }
        let left: BTreeSet<_> =
            self.artifacts.iter().map(|(key, record)| (key.place().number(), record.artifact.tree)).collect();
        for (_, _, key) in &old {
            let number = key.place().number();
            self.kept.retain(|kept, _| kept.0 != number || left.contains(kept));
        }
        old.len() as u64
    }

    /// Keeps blobs for an artifact of a running job.
    pub(super) fn keep_artifact(&mut self, job: JobId, tree: Digest, blobs: Vec<Digest>) {
        let Some(&number) = self.numbers.get(&job) else { return };
        let job = &self.jobs[&number];
        if job.place.is_some() && job.lease.is_some() {
            self.kept.entry((number, tree)).or_default().extend(blobs);
        }
    }

    /// The job's attempt ended: what was kept and not named is let go.
    pub(super) fn let_go(&mut self, number: u64) {
        let Some(place) = self.jobs.get(&number).and_then(|job| job.place) else { return };
        let named: BTreeSet<_> = self.artifacts_at(place).map(|artifact| artifact.tree).collect();
        self.kept.retain(|(kept, tree), _| *kept != number || named.contains(tree));
    }

    /// All blobs that something names.
    pub(super) fn named_blobs(&self) -> BTreeSet<Digest> {
        let of_jobs = self.jobs.values().flat_map(|job| &job.new.blobs);
        let of_runs = self.runs.values().flat_map(|run| &run.new.blobs);
        of_jobs.chain(of_runs).chain(self.kept.values().flatten()).copied().collect()
    }
}
