//! Recording runs.

use std::collections::{BTreeMap, BTreeSet};

use executr_api::RunEventKind;
use executr_spec::RunId;
use uuid::Uuid;

use super::artifact::keep_taken_over;
use super::code::{before_code, gate_code, run_state_code};
use super::follow::Followed;
use super::locked::{Node, Run, Runs, Wait};
use super::work::Work;
use crate::lifecycle::graph::Before;
use crate::postgres::change::{Change, readied};
use crate::postgres::coding::{json, text};
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::permits::Permits;
use crate::postgres::registry::Bucket;
use crate::postgres::session::{Session, step};
use crate::postgres::submit::{Columns, admit};
use crate::{NewJob, NewRun, RunAnswer, RunProgress, StoreError};

/// So many jobs are sent at once.
const PART: usize = 4_000;

/// Records a run with all its jobs.
pub(super) async fn submit_run(
    core: &Core,
    session: &mut Session,
    new: &NewRun,
    again: bool,
) -> Result<RunAnswer, Fault> {
    let row = session.row("SELECT seq FROM executr.run WHERE id = $1", &[&new.id.0]).await?;
    if let Some(row) = row {
        if again {
            return known(core, session, new.id, row.get(0)).await;
        }
        return Err(StoreError::Database(format!("the run {} is there already", new.id)).into());
    }
    if let Some(key) = &new.idempotency_key {
        let sql = "SELECT id FROM executr.run WHERE tenant = $1 AND idempotency_key = $2 AND NOT deleted";
        if let Some(row) = session.row(sql, &[&new.tenant.as_str(), &text(key)]).await? {
            return Ok(RunAnswer { id: RunId(row.get(0)), existing: true, progress: RunProgress::default() });
        }
    }
    // Those that were done are final at once, and ask for nothing.
    let asking: Vec<(usize, &NewJob)> =
        new.jobs.iter().enumerate().filter(|(_, job)| job.done.is_none()).map(|(at, job)| (at, &job.job)).collect();
    if let Some(refused) = admit(core, session, &asking).await? {
        return Err(refused.into());
    }
    let buckets: Vec<Bucket> = new.jobs.iter().map(|job| Bucket::of(&job.job)).collect();
    let buckets = core.registry.ids(session, &buckets).await?;
    record(core, session, new, &buckets).await
}

/// A first try whose answer was lost recorded it.
async fn known(core: &Core, session: &mut Session, id: RunId, seq: i64) -> Result<RunAnswer, Fault> {
    let rows = session
        .rows(
            "SELECT its.bucket FROM executr.run_job rj JOIN executr.job j ON j.seq = rj.seq
             JOIN executr.ready its ON its.bucket = j.bucket AND its.seq = j.seq WHERE rj.run = $1",
            &[&seq],
        )
        .await?;
    let buckets: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    for bucket in &buckets {
        core.registry.bucket(session, *bucket).await?;
    }
    let sql = "SELECT rj.job FROM executr.run_job rj JOIN executr.waiting w ON w.seq = rj.seq
         WHERE rj.run = $1 AND w.asked ORDER BY rj.place";
    let asked = session.rows(sql, &[&seq]).await?;
    let asked = asked.iter().map(|row| executr_spec::JobId(row.get(0))).collect();
    let progress = RunProgress { changed: vec![id], asked, readied: readied(core, buckets), ..RunProgress::default() };
    Ok(RunAnswer { id, existing: false, progress })
}

async fn record(core: &Core, session: &mut Session, new: &NewRun, buckets: &[i32]) -> Result<RunAnswer, Fault> {
    let now = session.begin(core.clock_offset()).await?;
    let count = new.jobs.len() as i64 + 1;
    let rows = session.rows("SELECT nextval('executr.job_seq') FROM generate_series(1, $1::bigint)", &[&count]).await?;
    let mut seqs: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    seqs.sort_unstable();
    let seq = seqs.remove(0);
    let mut run = Run::new(seq, seqs.last().copied().unwrap_or(seq), new, now);
    let mut permits = Permits::default();
    let names: Vec<(&str, &str)> = new.jobs.iter().filter_map(|job| permit_name(&job.job)).collect();
    let permit_ids = permits.lock_named(session, &names).await?;
    let workspaces = record_workspaces(session, seq, new).await?;

    let mut successors: Vec<Vec<i32>> = vec![Vec::new(); new.jobs.len()];
    for (place, job) in (0..).zip(&new.jobs) {
        for need in &job.needs {
            let before = successors.get_mut(*need as usize).filter(|_| i64::from(*need) < i64::from(place));
            before.ok_or_else(|| unusable(new, place, *need))?.push(place);
        }
    }
    let mut runs = Runs::default();
    let mut change = Change::default();
    let mut queue = BTreeSet::new();
    let mut own_buckets = BTreeSet::new();
    for ((place, job), (seq, bucket)) in (0..).zip(&new.jobs).zip(seqs.iter().zip(buckets)) {
        let permit = permit_name(&job.job).zip(job.job.concurrency.as_ref()).and_then(|((tenant, key), (_, limit))| {
            permit_ids.get(&(tenant.to_owned(), key.to_owned())).map(|id| (*id, i64::from(*limit)))
        });
        let workspace = job.pinned.as_ref().and_then(|executor| workspaces.get(executor.as_str()).copied());
        if workspace.is_none() {
            own_buckets.insert(*bucket);
        }
        if job.needs.is_empty() || job.done.is_some() {
            queue.insert(place);
        }
        change.count(core, *bucket, None, Some(executr_api::JobState::Waiting));
        run.nodes.insert(
            place,
            Node {
                seq: *seq,
                job: job.job.id,
                bucket: *bucket,
                permit,
                workspace,
                name: text(&job.name),
                gate: job.gate,
                continue_on_error: job.continue_on_error,
                successors: successors.get_mut(place as usize).map(std::mem::take).unwrap_or_default(),
                before: Before::default(),
                wait: Some(Wait { needs: i32::try_from(job.needs.len()).unwrap_or(i32::MAX), asked: false }),
                stopped: None,
                is_done: job.done.is_some(),
                end: None,
            },
        );
    }
    run.buckets = own_buckets.into_iter().collect();
    runs.put(run);
    record_jobs(session, new, &runs, seq, &seqs, buckets, now.0).await?;
    keep_taken_over(session, &new.jobs, &seqs).await?;

    let mut followed = Followed::default();
    let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
    runs.tell(seq, &RunEventKind::RunCreated, now, &mut followed.progress)?;
    for (place, job) in (0..).zip(&new.jobs) {
        if let Some(done) = &job.done {
            runs.hand_on(seq, place, done.handed.clone())?;
        }
    }
    runs.settle(&mut work, seq, queue, &mut followed).await?;
    record_run(work.session, new, runs.run(seq)?, now.0).await?;
    runs.is_recorded(seq)?;
    followed.give_back(&mut runs, &mut work).await?;
    runs.write(&mut work).await?;
    permits.write(session).await?;
    session.commit().await?;
    Ok(RunAnswer { id: new.id, existing: false, progress: followed.alone(core) })
}

fn unusable(new: &NewRun, place: i32, need: u32) -> Fault {
    let told = format!("the plan of the run {} can't be: the job at {place} needs the one at {need}", new.id);
    StoreError::Database(told).into()
}

fn permit_name(job: &NewJob) -> Option<(&str, &str)> {
    job.concurrency.as_ref().map(|(key, _)| (job.tenant.as_str(), key.as_str()))
}

/// The workspaces that the run's executors hold, by the executors' names.
async fn record_workspaces<'a>(
    session: &mut Session,
    seq: i64,
    new: &'a NewRun,
) -> Result<BTreeMap<&'a str, i64>, Fault> {
    let mut users: BTreeMap<&str, i64> = BTreeMap::new();
    for executor in new.jobs.iter().filter_map(|job| job.pinned.as_deref()) {
        *users.entry(executor).or_default() += 1;
    }
    let mut ids = BTreeMap::new();
    for (executor, users) in users {
        let row = session
            .row(
                "WITH new AS (INSERT INTO executr.workspace (run, executor, users) VALUES ($1, $2, $3) RETURNING id)
                 INSERT INTO executr.workspace_holder (workspace, generation) SELECT id, 1 FROM new RETURNING workspace",
                &[&seq, &text(executor), &users],
            )
            .await?;
        ids.extend(row.map(|row| (executor, row.get(0))));
    }
    Ok(ids)
}

/// Writes the jobs and their places in the graph.
async fn record_jobs(
    session: &mut Session,
    new: &NewRun,
    runs: &Runs,
    run: i64,
    seqs: &[i64],
    buckets: &[i32],
    now: i64,
) -> Result<(), Fault> {
    let Some(nodes) = runs.runs.get(&run).map(|run| &run.nodes) else { return Ok(()) };
    let mut from = 0;
    for part in new.jobs.chunks(PART) {
        let range = from..from + part.len();
        let (seqs, buckets) = (seqs[range.clone()].to_vec(), buckets[range].to_vec());
        let places: Vec<i32> = (from as i32..).take(part.len()).collect();
        from += part.len();
        let nodes: Vec<&Node> = places.iter().filter_map(|place| nodes.get(place)).collect();
        let jobs: Vec<&NewJob> = part.iter().map(|job| &job.job).collect();
        let permits: Vec<Option<(i64, i64)>> = nodes.iter().map(|node| node.permit).collect();
        let columns = Columns::new(&jobs, &seqs, &permits)?.of_run(run, nodes.iter().map(|node| node.workspace));
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.id.0).collect();
        let permit_ids: Vec<Option<i64>> = permits.iter().map(|permit| permit.map(|(id, _)| id)).collect();
        let limits: Vec<Option<i64>> = permits.iter().map(|permit| permit.map(|(_, limit)| limit)).collect();
        let workspaces: Vec<Option<i64>> = nodes.iter().map(|node| node.workspace).collect();
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let gates: Vec<i16> = nodes.iter().map(|node| gate_code(node.gate)).collect();
        let go_on: Vec<bool> = nodes.iter().map(|node| node.continue_on_error).collect();
        let needs: Vec<String> = part.iter().map(|job| numbers(&job.needs)).collect();
        let successors: Vec<String> = nodes.iter().map(|node| numbers(&node.successors)).collect();
        let inputs = part.iter().map(|job| (!job.inputs.is_empty()).then(|| json(&job.inputs)).transpose());
        let inputs: Vec<Option<String>> = inputs.collect::<Result<_, _>>()?;
        let mut steps = columns.steps(&seqs, &buckets, &now);
        steps.push(step!(
            "INSERT INTO executr.run_job (run, seq, place, job, bucket, permit, permit_limit, workspace, name, gate,
                                          continue_on_error, needs, successors, inputs)
             SELECT $1, seq, place, job, bucket, permit, permit_limit, workspace, name, gate, go_on, needs::int[],
                    successors::int[], inputs
             FROM unnest($2::bigint[], $3::int[], $4::uuid[], $5::int[], $6::bigint[], $7::bigint[], $8::bigint[],
                         $9::text[], $10::smallint[], $11::bool[], $12::text[], $13::text[], $14::text[])
                  AS new (seq, place, job, bucket, permit, permit_limit, workspace, name, gate, go_on, needs,
                          successors, inputs)",
            &run,
            &seqs,
            &places,
            &ids,
            &buckets,
            &permit_ids,
            &limits,
            &workspaces,
            &names,
            &gates,
            &go_on,
            &needs,
            &successors,
            &inputs
        ));
        session.run_all(steps).await?;
    }
    Ok(())
}

/// Numbers as PostgreSQL reads an array.
fn numbers<T: std::fmt::Display>(numbers: &[T]) -> String {
    let mut text = String::from("{");
    for (at, number) in numbers.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&number.to_string());
    }
    text.push('}');
    text
}

/// Writes the run as it stands now, and which of its jobs wait.
async fn record_run(session: &mut Session, new: &NewRun, run: &Run, now: i64) -> Result<(), Fault> {
    let source = new.source.as_ref().map(|source| &source.0[..]);
    let deadline = run.timeout.map(|timeout| now.saturating_add(timeout));
    let key = new.idempotency_key.as_deref().map(text);
    let name = text(&new.name);
    let recorded = session
        .run(
            "INSERT INTO executr.run (seq, last_seq, id, tenant, name, state, fail_fast, timeout, deadline, source, rerun_of,
                                      idempotency_key, created_at, completed_at, last_event, buckets, jobs, waiting,
                                      completed, failed, cancelled, skipped, failures)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                     $23)
             ON CONFLICT DO NOTHING",
            &[
                &run.seq,
                &run.last_seq,
                &run.id.0,
                &run.tenant,
                &name,
                &run_state_code(run.state),
                &run.fail_fast,
                &run.timeout,
                &deadline,
                &source,
                &new.rerun_of.map(|run| run.0),
                &key,
                &now,
                &run.completed_at,
                &run.last_event,
                &run.buckets,
                &run.jobs,
                &run.waiting,
                &run.completed,
                &run.failed,
                &run.cancelled,
                &run.skipped,
                &run.failures,
            ],
        )
        .await?;
    if recorded == 0 {
        return Err(Fault::Again("a run's idempotency key was taken in this moment".to_owned()));
    }
    let digests: Vec<&[u8]> = new.blobs.iter().map(|blob| &blob.0[..]).collect();
    let waiting: Vec<(i64, Wait, Before)> =
        run.nodes.values().filter_map(|node| Some((node.seq, node.wait?, node.before))).collect();
    let seqs: Vec<i64> = waiting.iter().map(|(seq, ..)| *seq).collect();
    let needs: Vec<i32> = waiting.iter().map(|(_, wait, _)| wait.needs).collect();
    let before: Vec<i16> = waiting.iter().map(|(.., before)| before_code(*before)).collect();
    let asked: Vec<bool> = waiting.iter().map(|(_, wait, _)| wait.asked).collect();
    let plan: &str = &new.plan;
    let mut steps = vec![step!("INSERT INTO executr.run_plan (run, plan) VALUES ($1, $2)", &run.seq, &plan)];
    if !digests.is_empty() {
        steps.push(step!(
            "INSERT INTO executr.job_blob (digest, seq) SELECT digest, $2 FROM unnest($1::bytea[]) AS digest
             ON CONFLICT DO NOTHING",
            &digests,
            &run.seq
        ));
    }
    if !seqs.is_empty() {
        steps.push(step!(
            "INSERT INTO executr.waiting (run, seq, needs, before, asked)
             SELECT $1, * FROM unnest($2::bigint[], $3::int[], $4::smallint[], $5::bool[])",
            &run.seq,
            &seqs,
            &needs,
            &before,
            &asked
        ));
    }
    session.run_all(steps).await
}
