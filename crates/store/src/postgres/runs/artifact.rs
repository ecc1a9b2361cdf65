//! What final jobs handed on: outputs, artifacts, and the blobs kept for those.

use std::collections::BTreeMap;

use executr_api::Artifact;
use executr_spec::{Digest, JobId, RunId, Tenant, Timestamp};
use tokio_postgres::Row;

use super::locked::Runs;
use crate::postgres::coding::{damaged, json, name, signed, text, unsigned};
use crate::postgres::fault::Fault;
use crate::postgres::session::{Session, Step, step};
use crate::{ArtifactRecord, Handed, NewRunJob};

/// What a transaction takes over from jobs.
#[derive(Default)]
pub(super) struct Handing {
    outputs: Vec<(i64, BTreeMap<String, String>)>,
    artifacts: Vec<Made>,
    /// Jobs whose attempts ended.
    ended: Vec<i64>,
}

/// An artifact and where it comes from.
struct Made {
    run: i64,
    place: i32,
    seq: i64,
    tenant: String,
    run_id: RunId,
    run_name: String,
    job_name: String,
    artifact: Artifact,
}

impl Runs {
    /// Takes over what a job handed on.
    pub(super) fn hand_on(&mut self, seq: i64, place: i32, handed: Handed) -> Result<(), Fault> {
        let node = self.node(seq, place)?;
        let (job, job_name) = (node.seq, node.name.clone());
        if !handed.outputs.is_empty() {
            self.handing.outputs.push((job, handed.outputs));
        }
        // The last of a name counts.
        let artifacts: BTreeMap<String, Artifact> =
            handed.artifacts.into_iter().map(|artifact| (artifact.name.clone(), artifact)).collect();
        if artifacts.is_empty() {
            return Ok(());
        }
        let run = self.run(seq)?;
        let (tenant, run_id, run_name) = (run.tenant.clone(), run.id, run.name.clone());
        self.handing.artifacts.extend(artifacts.into_values().map(|artifact| Made {
            run: seq,
            place,
            seq: job,
            tenant: tenant.clone(),
            run_id,
            run_name: run_name.clone(),
            job_name: job_name.clone(),
            artifact,
        }));
        Ok(())
    }

    /// An attempt of the job ended: what was kept for it and not named is let go.
    pub(in crate::postgres) fn let_go(&mut self, job: i64) {
        self.handing.ended.push(job);
    }
}

/// [`Handing`], column by column.
pub(super) struct HandingColumns<'a> {
    output_seq: Vec<i64>,
    outputs: Vec<String>,
    run: Vec<i64>,
    place: Vec<i32>,
    name: Vec<String>,
    seq: Vec<i64>,
    tenant: Vec<&'a str>,
    run_id: Vec<uuid::Uuid>,
    run_name: Vec<&'a str>,
    job_name: Vec<&'a str>,
    tree: Vec<&'a [u8]>,
    size: Vec<i64>,
    files: Vec<i64>,
    ended: &'a Vec<i64>,
}

impl<'a> HandingColumns<'a> {
    pub(super) fn new(handing: &'a Handing) -> Result<Self, Fault> {
        let made = &handing.artifacts;
        Ok(Self {
            output_seq: handing.outputs.iter().map(|(seq, _)| *seq).collect(),
            outputs: handing.outputs.iter().map(|(_, outputs)| json(outputs)).collect::<Result<_, _>>()?,
            run: made.iter().map(|made| made.run).collect(),
            place: made.iter().map(|made| made.place).collect(),
            name: made.iter().map(|made| text(&made.artifact.name)).collect(),
            seq: made.iter().map(|made| made.seq).collect(),
            tenant: made.iter().map(|made| made.tenant.as_str()).collect(),
            run_id: made.iter().map(|made| made.run_id.0).collect(),
            run_name: made.iter().map(|made| made.run_name.as_str()).collect(),
            job_name: made.iter().map(|made| made.job_name.as_str()).collect(),
            tree: made.iter().map(|made| &made.artifact.tree.0[..]).collect(),
            size: made.iter().map(|made| signed(made.artifact.size)).collect(),
            files: made.iter().map(|made| signed(made.artifact.files)).collect(),
            ended: &handing.ended,
        })
    }

    pub(super) fn steps<'b>(&'b self, now: &'b i64) -> Vec<Step<'b>> {
        let mut steps = Vec::new();
        if !self.output_seq.is_empty() {
            steps.push(step!(
                "INSERT INTO executr.handed (seq, outputs) SELECT * FROM unnest($1::bigint[], $2::text[])",
                &self.output_seq,
                &self.outputs
            ));
        }
        if !self.run.is_empty() {
            steps.push(step!(
                "INSERT INTO executr.artifact (created_at, run, place, name, seq, tenant, run_id, run_name, job_name,
                                               tree, size, files)
                 SELECT $12, * FROM unnest($1::bigint[], $2::int[], $3::text[], $4::bigint[], $5::text[], $6::uuid[],
                                           $7::text[], $8::text[], $9::bytea[], $10::bigint[], $11::bigint[])",
                &self.run,
                &self.place,
                &self.name,
                &self.seq,
                &self.tenant,
                &self.run_id,
                &self.run_name,
                &self.job_name,
                &self.tree,
                &self.size,
                &self.files,
                now
            ));
        }
        if !self.ended.is_empty() {
            steps.push(let_go(self.ended));
        }
        steps
    }
}

/// Lets go what was kept for artifacts of these jobs that there aren't.
pub(in crate::postgres) fn let_go(jobs: &Vec<i64>) -> Step<'_> {
    step!(
        "DELETE FROM executr.kept_blob k WHERE k.seq = ANY($1)
         AND NOT EXISTS (SELECT FROM executr.artifact a WHERE a.seq = k.seq AND a.tree = k.tree)",
        jobs
    )
}

/// Blobs to keep for an artifact that a job is about to have.
pub(super) type Keeping = (JobId, Digest, Vec<Digest>);

/// Keeps blobs. Whoever ends the lease waits until it is done and sees them then.
pub(super) async fn keep(session: &mut Session, keeping: &Keeping) -> Result<(), Fault> {
    let (job, tree, blobs) = keeping;
    let digests: Vec<&[u8]> = blobs.iter().map(|blob| &blob.0[..]).collect();
    session
        .run(
            "WITH held AS (SELECT seq FROM executr.lease WHERE job = $1 AND run IS NOT NULL FOR KEY SHARE)
             INSERT INTO executr.kept_blob (digest, seq, tree)
             SELECT digest, held.seq, $2 FROM unnest($3::bytea[]) AS digest CROSS JOIN held
             ON CONFLICT DO NOTHING",
            &[&job.0, &&tree.0[..], &digests],
        )
        .await?;
    Ok(())
}

/// So many blobs are written by one statement, and those of one more tree.
const KEPT_AT_A_TIME: usize = 10_000;

/// Keeps the blobs of artifacts that jobs of a new run take over; `seqs` are the jobs' numbers.
pub(super) async fn keep_taken_over(session: &mut Session, jobs: &[NewRunJob], seqs: &[i64]) -> Result<(), Fault> {
    let (mut digests, mut of, mut trees): (Vec<&[u8]>, Vec<i64>, Vec<&[u8]>) = Default::default();
    let mut left = Vec::new();
    for (job, seq) in jobs.iter().zip(seqs) {
        for (tree, blobs) in job.done.iter().flat_map(|done| &done.kept) {
            left.push((*seq, tree, blobs));
        }
    }
    while let Some((seq, tree, blobs)) = left.pop() {
        digests.extend(blobs.iter().map(|blob| &blob.0[..]));
        of.resize(digests.len(), seq);
        trees.resize(digests.len(), &tree.0[..]);
        if digests.len() < KEPT_AT_A_TIME && !left.is_empty() {
            continue;
        }
        let sql = "INSERT INTO executr.kept_blob (digest, seq, tree)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) ON CONFLICT DO NOTHING";
        session.run(sql, &[&digests, &of, &trees]).await?;
        digests.clear();
        of.clear();
        trees.clear();
    }
    Ok(())
}

/// Which artifacts to list.
pub(super) type Wanted = (Option<Tenant>, Option<RunId>, u32);

/// The columns of an artifact, as [`artifact`] reads them from a row.
pub(super) const ARTIFACT: &str = "a.name, a.tree, a.size, a.files";

/// Artifacts, newest run first.
pub(super) async fn list(session: &mut Session, wanted: &Wanted) -> Result<Vec<ArtifactRecord>, Fault> {
    let (tenant, run, limit) = wanted;
    let tenant = tenant.as_ref().map(Tenant::as_str);
    let filter = match (run, tenant) {
        (Some(_), _) => {
            "a.run = (SELECT b.run FROM executr.artifact b WHERE b.run_id = $2 LIMIT 1) AND ($1::text IS NULL OR a.tenant = $1)"
        }
        (None, Some(_)) => "a.tenant = $1 AND $2::uuid IS NULL",
        (None, None) => "$1::text IS NULL AND $2::uuid IS NULL",
    };
    let sql = format!(
        "SELECT {ARTIFACT}, a.tenant, a.run_id, a.run_name, a.job_name, a.created_at FROM executr.artifact a
         WHERE {filter} ORDER BY a.run DESC, a.place, a.name LIMIT $3"
    );
    let rows = session.rows(sql, &[&tenant, &run.map(|run| run.0), &i64::from(*limit)]).await?;
    let record = |row: &Row| {
        Ok(ArtifactRecord {
            tenant: name(row.get(4))?,
            run: RunId(row.get(5)),
            run_name: row.get(6),
            job: row.get(7),
            artifact: artifact(row, 0)?,
            created_at: Timestamp(row.get(8)),
        })
    };
    rows.iter().map(record).collect()
}

/// Reads an artifact from column `at` on.
pub(super) fn artifact(row: &Row, at: usize) -> Result<Artifact, Fault> {
    let tree: &[u8] = row.get(at + 1);
    let tree = tree.try_into().map_err(|_| damaged("an artifact's tree".to_owned()))?;
    Ok(Artifact {
        name: row.get(at),
        tree: Digest(tree),
        size: unsigned(row.get(at + 2)),
        files: unsigned(row.get(at + 3)),
    })
}

/// Deletes old artifacts, and lets go what was kept for them.
pub(super) async fn delete(session: &mut Session, before: Timestamp, limit: u32) -> Result<u64, Fault> {
    session.begin(0).await?;
    let rows = session
        .rows(
            "WITH old AS MATERIALIZED (
                 SELECT run, place, name FROM executr.artifact a WHERE created_at < $1
                 AND NOT EXISTS (SELECT FROM executr.run r WHERE r.seq = a.run AND r.state < 2)
                 ORDER BY created_at, run, place, name LIMIT $2)
             DELETE FROM executr.artifact a USING old
             WHERE a.run = old.run AND a.place = old.place AND a.name = old.name RETURNING a.seq",
            &[&before.0, &i64::from(limit)],
        )
        .await?;
    let mut jobs: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    jobs.dedup();
    if !jobs.is_empty() {
        session.run_all(vec![let_go(&jobs)]).await?;
    }
    session.commit().await?;
    Ok(rows.len() as u64)
}
