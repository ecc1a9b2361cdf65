//! The workspaces that one worker holds, as far as it is known here.

use std::collections::BTreeMap;
use std::time::Duration;

use executr_api::WorkspaceId;
use executr_spec::RunId;
use executr_store::WorkspaceRecord;
use tokio::time::Instant;

/// A worker's workspaces.
#[derive(Debug, Default)]
pub(crate) struct Workspaces {
    held: BTreeMap<WorkspaceId, Held>,
    /// Whether some may have been released elsewhere.
    doubtful: bool,
}

#[derive(Debug, Default)]
struct Held {
    /// Whether its run needs it no more.
    released: bool,
    /// When the worker was last told so.
    told: Option<Instant>,
}

impl Workspaces {
    /// The worker holds this one.
    pub(crate) fn hold(&mut self, id: &WorkspaceId) {
        if !self.held.contains_key(id) {
            self.held.insert(id.clone(), Held::default());
        }
    }

    /// Its run needs it no more.
    pub(crate) fn release(&mut self, id: &WorkspaceId) {
        self.held.entry(id.clone()).or_default().released = true;
    }

    /// The worker has cleaned it up.
    pub(crate) fn cleaned(&mut self, id: &WorkspaceId) {
        self.held.remove(id);
    }

    /// What the store knows. What only is known here was claimed since.
    pub(crate) fn adopt(&mut self, records: Vec<WorkspaceRecord>) {
        for WorkspaceRecord { id, released, .. } in records {
            self.held.entry(id).or_default().released |= released;
        }
    }

    /// Something happened in this run (in any, when `None`) elsewhere.
    pub(crate) fn doubt(&mut self, run: Option<RunId>) {
        self.doubtful |= match run {
            Some(run) => self.held.iter().any(|(id, held)| id.run == run && !held.released),
            None => !self.held.is_empty(),
        };
    }

    /// Whether the store has to be asked about them. Says so once.
    pub(crate) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubtful)
    }

    /// Those to be cleaned up that the worker was not told of for `repeat`.
    pub(crate) fn overdue(&mut self, now: Instant, repeat: Duration) -> Vec<WorkspaceId> {
        let due = |held: &Held| held.released && held.told.is_none_or(|told| now.duration_since(told) >= repeat);
        let mut overdue = Vec::new();
        for (id, held) in self.held.iter_mut().filter(|(_, held)| due(held)) {
            held.told = Some(now);
            overdue.push(id.clone());
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use executr_spec::WorkerId;
    use uuid::Uuid;

    use super::*;

    fn id(run: u128) -> WorkspaceId {
        WorkspaceId { run: RunId(Uuid::from_u128(run)), executor: "h".to_owned(), generation: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_workspace_is_told_again_until_it_is_cleaned() {
        let repeat = Duration::from_secs(2);
        let mut workspaces = Workspaces::default();
        workspaces.hold(&id(1));
        workspaces.hold(&id(2));
        assert!(workspaces.overdue(Instant::now(), repeat).is_empty());
        workspaces.release(&id(1));
        assert_eq!(workspaces.overdue(Instant::now(), repeat), [id(1)]);
        assert!(workspaces.overdue(Instant::now(), repeat).is_empty());
        tokio::time::advance(repeat).await;
        assert_eq!(workspaces.overdue(Instant::now(), repeat), [id(1)]);
        workspaces.cleaned(&id(1));
        tokio::time::advance(repeat).await;
        assert!(workspaces.overdue(Instant::now(), repeat).is_empty());
    }

    #[test]
    fn what_happened_elsewhere_is_asked_for_once_and_only_where_it_matters() {
        let mut workspaces = Workspaces::default();
        workspaces.doubt(None);
        assert!(!workspaces.take_doubt());
        workspaces.hold(&id(1));
        workspaces.doubt(Some(id(2).run));
        assert!(!workspaces.take_doubt());
        workspaces.doubt(Some(id(1).run));
        assert!(workspaces.take_doubt() && !workspaces.take_doubt());
        let record = |run, released| WorkspaceRecord { id: id(run), worker: WorkerId("w".to_owned()), released };
        workspaces.adopt(vec![record(1, true), record(3, false)]);
        workspaces.doubt(Some(id(1).run));
        assert!(!workspaces.take_doubt(), "it is released already");
        workspaces.doubt(Some(id(3).run));
        assert!(workspaces.take_doubt());
    }
}
