//! Permits of concurrency keys, and the jobs that wait for one.

use executr_api::JobState;
use executr_spec::{Priority, Tenant};
use rusqlite::params;

use super::error::damaged;
use super::index::{BucketId, ReadyCount};
use super::row::state_code;
use super::writer::Writer;
use crate::StoreError;

impl Writer<'_> {
    fn held_permits(&self, tenant: &Tenant, key: &str) -> Result<u32, StoreError> {
        let held = self.find(
            "SELECT held FROM permit WHERE tenant = ?1 AND key = ?2",
            params![tenant.as_str(), key],
            |row| row.get(0),
        )?;
        Ok(held.unwrap_or(0))
    }

    fn set_held_permits(&self, tenant: &Tenant, key: &str, held: u32) -> Result<(), StoreError> {
        if held == 0 {
            self.execute("DELETE FROM permit WHERE tenant = ?1 AND key = ?2", params![tenant.as_str(), key])?;
        } else {
            self.execute(
                "INSERT OR REPLACE INTO permit (tenant, key, held) VALUES (?1, ?2, ?3)",
                params![tenant.as_str(), key, held],
            )?;
        }
        Ok(())
    }

    /// Takes a permit, if fewer than `limit` are held.
    pub(super) fn take_permit(&self, tenant: &Tenant, key: &str, limit: u32) -> Result<bool, StoreError> {
        let held = self.held_permits(tenant, key)?;
        if held >= limit {
            return Ok(false);
        }
        self.set_held_permits(tenant, key, held + 1)?;
        Ok(true)
    }

    /// The job waits for a permit.
    pub(super) fn block(&self, tenant: &Tenant, key: &str, priority: Priority, seq: i64) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO blocked (tenant, key, priority, seq) VALUES (?1, ?2, ?3, ?4)",
            params![tenant.as_str(), key, priority.rank(), seq],
        )?;
        Ok(())
    }

    /// The job no longer waits for a permit.
    pub(super) fn unblock(&self, tenant: &Tenant, key: &str, priority: Priority, seq: i64) -> Result<(), StoreError> {
        self.execute(
            "DELETE FROM blocked WHERE tenant = ?1 AND key = ?2 AND priority = ?3 AND seq = ?4",
            params![tenant.as_str(), key, priority.rank(), seq],
        )?;
        Ok(())
    }

    /// Gives back the permit of a job, and lets go of those that wait for one.
    pub(super) fn release_permit(
        &mut self,
        seq: i64,
        tenant: &Tenant,
        readied: &mut ReadyCount,
    ) -> Result<(), StoreError> {
        let key: String = self
            .find("SELECT concurrency_key FROM job WHERE seq = ?1", [seq], |row| row.get(0))?
            .ok_or_else(|| damaged(format_args!("no job {seq}")))?;
        let mut held = self.held_permits(tenant, &key)?.saturating_sub(1);
        loop {
            let first = self.find(
                "SELECT b.seq, b.priority, j.bucket, j.concurrency_limit FROM blocked b JOIN job j USING (seq)
                 WHERE b.tenant = ?1 AND b.key = ?2 ORDER BY b.priority, b.seq LIMIT 1",
                params![tenant.as_str(), key],
                |row| Ok((row.get(0)?, row.get::<_, i16>(1)?, BucketId(row.get(2)?), row.get::<_, u32>(3)?)),
            )?;
            let Some((seq, rank, bucket, limit)) = first else { break };
            if held >= limit {
                break;
            }
            held += 1;
            let priority = Priority::from_rank(rank).ok_or_else(|| damaged(format_args!("priority {rank}")))?;
            self.unblock(tenant, &key, priority, seq)?;
            let bucket = self.bucket_to_enter(seq, bucket, JobState::Blocked, None)?;
            self.execute("UPDATE job SET state = ?2 WHERE seq = ?1", params![seq, state_code(JobState::Ready)])?;
            self.step(bucket, seq, JobState::Blocked, JobState::Ready)?;
            self.enter_ready(bucket, seq)?;
            readied.add(bucket);
        }
        self.set_held_permits(tenant, &key, held)
    }
}
