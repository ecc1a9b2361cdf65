//! Concurrency keys: who holds a permit, and who is next.
//!
//! A key's row is locked by whoever takes or gives back a permit of it, so `blocked` rows of a key change under that
//! lock only.

use std::collections::{HashMap, HashSet, VecDeque};

use super::change::{Change, Counts, Place};
use super::core::Core;
use super::fault::Fault;
use super::runs;
use super::session::{Session, step};

/// So many waiting jobs of a key are looked at together.
const PAGE: i64 = 64;

struct Waiting {
    place: Place,
    workspace: Option<i64>,
    counts: Counts,
    limit: i64,
}

#[derive(Default)]
struct Key {
    held: i64,
    changed: bool,
    waiting: VecDeque<Waiting>,
    /// The last waiting job that was read: (priority, seq).
    read_to: (i16, i64),
    all_read: bool,
}

/// The keys that a transaction deals with, locked until its end.
#[derive(Default)]
pub(super) struct Permits(HashMap<i64, Key>);

impl Permits {
    /// Locks keys by tenant and name, making those that are new, and returns their ids.
    pub(super) async fn lock_named(
        &mut self,
        session: &mut Session,
        names: &[(&str, &str)],
    ) -> Result<HashMap<(String, String), i64>, Fault> {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let (tenants, keys): (Vec<&str>, Vec<&str>) = names.into_iter().unzip();
        let rows = session
            .rows(
                "INSERT INTO executr.permit AS p (tenant, key)
                 SELECT * FROM unnest($1::text[], $2::text[])
                 ON CONFLICT (tenant, key) DO UPDATE SET held = p.held
                 RETURNING id, held, tenant, key",
                &[&tenants, &keys],
            )
            .await?;
        let mut ids = HashMap::new();
        for row in rows {
            self.learn(row.get(0), row.get(1));
            ids.insert((row.get(2), row.get(3)), row.get(0));
        }
        Ok(ids)
    }

    /// Locks keys by id.
    pub(super) async fn lock(
        &mut self,
        session: &mut Session,
        ids: impl IntoIterator<Item = i64>,
    ) -> Result<(), Fault> {
        let mut ids: Vec<i64> = ids.into_iter().filter(|id| !self.0.contains_key(id)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        ids.sort_unstable();
        ids.dedup();
        let sql = "SELECT id, held FROM executr.permit WHERE id = ANY($1) ORDER BY id FOR UPDATE";
        for row in session.rows(sql, &[&ids]).await? {
            self.learn(row.get(0), row.get(1));
        }
        Ok(())
    }

    fn learn(&mut self, id: i64, held: i64) {
        self.0.insert(id, Key { held, read_to: (-1, 0), ..Key::default() });
    }

    /// Takes a permit if `limit` allows one more.
    pub(super) fn take(&mut self, id: i64, limit: i64) -> bool {
        let Some(key) = self.0.get_mut(&id) else { return false };
        let free = key.held < limit;
        if free {
            key.held += 1;
            key.changed = true;
        }
        free
    }

    /// Jobs were put in line for these keys, and are written: they are to be read again.
    pub(super) fn look_again(&mut self, ids: &[i64]) {
        for id in ids {
            if let Some(key) = self.0.get_mut(id) {
                *key = Key { held: key.held, changed: key.changed, read_to: (-1, 0), ..Key::default() };
            }
        }
    }

    /// These jobs wait for no key any more.
    pub(super) fn out_of_line(&mut self, jobs: impl Iterator<Item = i64>) {
        let jobs: HashSet<i64> = jobs.collect();
        for key in self.0.values_mut() {
            key.waiting.retain(|waiting| !jobs.contains(&waiting.place.seq));
        }
    }

    /// Gives a permit back. The jobs that become ready by it are put into `change`; their buckets are returned.
    pub(super) async fn give_back(
        &mut self,
        core: &Core,
        session: &mut Session,
        change: &mut Change,
        id: i64,
    ) -> Result<Vec<i32>, Fault> {
        let Some(key) = self.0.get_mut(&id) else { return Ok(Vec::new()) };
        key.held = (key.held - 1).max(0);
        key.changed = true;
        let mut freed = Vec::new();
        loop {
            if key.waiting.is_empty() && !key.all_read {
                key.read(session, id).await?;
            }
            let Some(first) = key.waiting.front() else { break };
            if key.held >= first.limit {
                break;
            }
            let Some(first) = key.waiting.pop_front() else { break };
            key.held += 1;
            core.registry.bucket(session, first.place.bucket).await?;
            let place = match first.workspace {
                Some(workspace) => runs::enter(core, session, change, workspace, first.place, None).await?,
                None => first.place,
            };
            change.unblocked(place.seq);
            change.ready(place, first.counts);
            change.count(core, first.place.bucket, Some(executr_api::JobState::Blocked), None);
            change.count(core, place.bucket, None, Some(executr_api::JobState::Ready));
            freed.push(place.bucket);
        }
        Ok(freed)
    }

    /// Writes down how many permits are held now.
    pub(super) async fn write(&self, session: &mut Session) -> Result<(), Fault> {
        let changed: Vec<_> = self.0.iter().filter(|(_, key)| key.changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = changed.iter().map(|(id, _)| **id).collect();
        let held: Vec<i64> = changed.iter().map(|(_, key)| key.held).collect();
        session
            .run_all(vec![step!(
                "UPDATE executr.permit p SET held = new.held
                 FROM unnest($1::bigint[], $2::bigint[]) AS new (id, held) WHERE p.id = new.id",
                &ids,
                &held
            )])
            .await
    }
}

impl Key {
    async fn read(&mut self, session: &mut Session, id: i64) -> Result<(), Fault> {
        let rows = session
            .rows(
                "SELECT priority, seq, bucket, permit_limit, attempt, failures, lost, workspace FROM executr.blocked
                 WHERE permit = $1 AND (priority, seq) > ($2, $3) ORDER BY priority, seq LIMIT $4",
                &[&id, &self.read_to.0, &self.read_to.1, &PAGE],
            )
            .await?;
        self.all_read = (rows.len() as i64) < PAGE;
        for row in rows {
            self.read_to = (row.get(0), row.get(1));
            self.waiting.push_back(Waiting {
                place: Place { seq: row.get(1), bucket: row.get(2) },
                workspace: row.get(7),
                limit: row.get(3),
                counts: Counts { attempt: row.get(4), failures: row.get(5), lost: row.get(6) },
            });
        }
        Ok(())
    }
}
