//! Which worker holds the workspaces of runs.

use executr_api::{JobState, WorkspaceId};
use executr_spec::WorkerId;
use rusqlite::{Connection, params};

use super::follow::Followed;
use super::live::{Node, Place};
use super::load::run_id;
use crate::lifecycle::graph::pinned_class;
use crate::sqlite::index::{BucketId, BucketKey};
use crate::sqlite::query::collect;
use crate::sqlite::row::get;
use crate::sqlite::writer::Writer;
use crate::{RunProgress, StoreError, WorkspaceRecord};

impl Writer<'_> {
    /// The bucket in which the job, which is in `bucket` and this state, stands in the ready set; it is moved there.
    /// `has_it`: the worker that has it though it is to stand there, because its lease ran out.
    pub(in crate::sqlite) fn bucket_to_enter(
        &mut self,
        seq: i64,
        bucket: BucketId,
        state: JobState,
        has_it: Option<&WorkerId>,
    ) -> Result<BucketId, StoreError> {
        let Some(place) = self.runs.place(seq) else { return Ok(bucket) };
        let run = self.runs.get(place.number)?;
        let Some(workspace) = run.node(place.index).workspace else { return Ok(bucket) };
        let holder = run.workspaces[usize::from(workspace)].holder.as_ref();
        let key = self.index.key(bucket)?;
        let class = pinned_class(&key.class, holder, has_it);
        if class == key.class {
            return Ok(bucket);
        }
        let to = self.index.bucket(&BucketKey { class, ..(*key).clone() }, self.connection)?;
        self.index.step(to, None, Some(state))?;
        self.index.step(bucket, Some(state), None)?;
        self.execute("UPDATE job SET bucket = ?2 WHERE seq = ?1", params![seq, to.0])?;
        self.runs.node_mut(place)?.bucket = to;
        Ok(to)
    }

    /// Moves the jobs in the ready set to where the workspace is now.
    fn move_users(&mut self, number: i64, workspace: u16, followed: &mut Followed) -> Result<(), StoreError> {
        let nodes = (0..).zip(&self.runs.get(number)?.nodes).filter(|(_, node)| node.workspace == Some(workspace));
        let users: Vec<(u32, Node)> = nodes.map(|(index, node)| (index, *node)).collect();
        for (index, node) in users {
            let seq = Place { number, index }.seq();
            let reclaimable = if node.state == JobState::Running { self.reclaimable(seq)? } else { None };
            if node.state != JobState::Ready && reclaimable.is_none() {
                continue;
            }
            // It is moved while it stands in neither.
            let has_it = reclaimable.as_ref().map(|(_, worker)| worker);
            self.leave_ready(node.bucket, seq)?;
            let bucket = self.bucket_to_enter(seq, node.bucket, node.state, has_it)?;
            self.enter_ready(bucket, seq)?;
            if bucket != node.bucket {
                followed.readied.add(bucket);
                if let Some((job, _)) = reclaimable {
                    self.leases.change(job, |live| live.bucket = bucket);
                }
            }
        }
        Ok(())
    }

    /// The job and the worker that has it, when its lease ran out.
    fn reclaimable(&self, seq: i64) -> Result<Option<(executr_spec::JobId, WorkerId)>, StoreError> {
        let id = self.find("SELECT id FROM job WHERE seq = ?1", [seq], |row| row.get(0))?;
        let live = id.map(crate::sqlite::row::job_id).and_then(|id| self.leases.get(id));
        Ok(live.filter(|live| live.reclaimable).map(|live| (live.fence.job, live.worker_id())))
    }

    /// The worker claimed the job: it holds the workspace from now on. Returns that, and whether others were moved.
    pub(super) fn hold_workspace(
        &mut self,
        place: Place,
        worker: &WorkerId,
        followed: &mut Followed,
    ) -> Result<Option<(WorkspaceId, bool)>, StoreError> {
        let run = self.runs.get_mut(place.number)?;
        let Some(at) = run.node(place.index).workspace else { return Ok(None) };
        let run_id = run.id;
        let workspace = &mut run.workspaces[usize::from(at)];
        let id = |generation| WorkspaceId { run: run_id, executor: workspace.executor.clone(), generation };
        if workspace.holder.as_ref() == Some(worker) {
            return Ok(Some((id(workspace.generation), false)));
        }
        let old = id(workspace.generation);
        let before = workspace.holder.replace(worker.clone());
        workspace.generation += u32::from(before.is_some());
        let new = WorkspaceId { generation: workspace.generation, ..old.clone() };
        if let Some(before) = before {
            self.execute(
                "UPDATE workspace SET released = 1 WHERE number = ?1 AND executor = ?2 AND generation = ?3",
                params![place.number, old.executor, old.generation],
            )?;
            followed.run.released.push((old, before));
        }
        self.execute(
            "INSERT OR REPLACE INTO workspace VALUES (?1, ?2, ?3, ?4, 0)",
            params![place.number, new.executor, new.generation, worker.0],
        )?;
        self.move_users(place.number, at, followed)?;
        Ok(Some((new, true)))
    }

    /// A job became final: its workspace is released, when it was the last that uses it.
    pub(super) fn release_workspace(
        &mut self,
        node: Node,
        number: i64,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        let Some(at) = node.workspace else { return Ok(()) };
        let run = self.runs.get_mut(number)?;
        let run_id = run.id;
        let workspace = &mut run.workspaces[usize::from(at)];
        if workspace.left > 0 {
            return Ok(());
        }
        let Some(holder) = workspace.holder.take() else { return Ok(()) };
        let id = WorkspaceId { run: run_id, executor: workspace.executor.clone(), generation: workspace.generation };
        self.execute(
            "UPDATE workspace SET released = 1 WHERE number = ?1 AND executor = ?2 AND generation = ?3",
            params![number, id.executor, id.generation],
        )?;
        followed.run.released.push((id, holder));
        Ok(())
    }

    /// The workspace that the worker of a job uses for it.
    pub(super) fn workspace_in_use(&self, place: Place, worker: &WorkerId) -> Result<Option<WorkspaceId>, StoreError> {
        let run = self.runs.get(place.number)?;
        let Some(at) = run.node(place.index).workspace else { return Ok(None) };
        let executor = run.workspaces[usize::from(at)].executor.clone();
        let generation = self.find(
            "SELECT max(generation) FROM workspace WHERE number = ?1 AND executor = ?2 AND worker = ?3",
            params![place.number, executor, worker.0],
            |row| row.get::<_, Option<u32>>(0),
        )?;
        Ok(generation.flatten().map(|generation| WorkspaceId { run: run.id, executor, generation }))
    }

    /// The worker has cleaned these up.
    pub(super) fn cleaned(&self, worker: &WorkerId, workspaces: &[WorkspaceId]) -> Result<(), StoreError> {
        for id in workspaces {
            self.execute(
                "DELETE FROM workspace WHERE number = (SELECT number FROM run WHERE id = ?1) AND executor = ?2
                                         AND generation = ?3 AND worker = ?4 AND released",
                params![id.run.0.as_bytes(), id.executor, id.generation, worker.0],
            )?;
        }
        Ok(())
    }

    /// These workers are lost.
    pub(super) fn lose_workspaces(&mut self, workers: &[WorkerId]) -> Result<RunProgress, StoreError> {
        let mut followed = Followed::default();
        for worker in workers {
            self.execute("DELETE FROM workspace WHERE worker = ?1 AND released", [&worker.0])?;
            let mut statement = self.statements.get("SELECT number, executor FROM workspace WHERE worker = ?1")?;
            let rows = statement.query_map([&worker.0], |row| Ok((row.get(0)?, row.get(1)?)));
            let held: Vec<(i64, String)> =
                rows.and_then(Iterator::collect).map_err(crate::sqlite::error::from_sqlite)?;
            drop(statement);
            for (number, executor) in held {
                self.lose_workspace(number, &executor, &mut followed)?;
            }
        }
        followed.into_progress(&self.index)
    }

    fn lose_workspace(&mut self, number: i64, executor: &str, followed: &mut Followed) -> Result<(), StoreError> {
        let run = self.runs.get_mut(number)?;
        let Some(at) = run.workspaces.iter().position(|workspace| workspace.executor == executor) else {
            return Ok(());
        };
        let workspace = &mut run.workspaces[at];
        workspace.holder = None;
        workspace.generation += 1;
        let generation = workspace.generation;
        self.execute(
            "UPDATE workspace SET worker = NULL, generation = ?3
             WHERE number = ?1 AND executor = ?2 AND generation = ?3 - 1",
            params![number, executor, generation],
        )?;
        self.move_users(number, at as u16, followed)
    }
}

/// Workspaces that a worker holds or should clean up.
pub(super) fn workspaces_of(connection: &Connection, worker: &WorkerId) -> Result<Vec<WorkspaceRecord>, StoreError> {
    collect(
        connection,
        "SELECT r.id, w.executor, w.generation, w.released FROM workspace w JOIN run r USING (number)
         WHERE w.worker = ?1 AND NOT r.hidden ORDER BY r.id, w.executor, w.generation",
        [&worker.0],
        |row| {
            let id = WorkspaceId { run: run_id(get(row, 0)?), executor: get(row, 1)?, generation: get(row, 2)? };
            Ok(WorkspaceRecord { id, worker: worker.clone(), released: get(row, 3)? })
        },
    )
}
