//! Taking results, and leases given back unstarted.

use std::collections::{HashMap, HashSet};

use executr_api::{AttemptResult, AttemptStatus, Fence, JobState, failpoint};
use executr_spec::{Backoff, JobId, LeaseId, Timestamp, WorkerId};
use uuid::Uuid;

use super::change::{AttemptEnd, Change, readied};
use super::coding::{from_json, json, small, status_code, text};
use super::core::Core;
use super::fault::Fault;
use super::gather::Answers;
use super::job;
use super::lease::{LeaseRow, take_leases};
use super::output::Pieces;
use super::permits::Permits;
use super::session::Session;
use crate::lifecycle::{self, Next};
use crate::{Finish, FinishAnswer, Finished, Return};

/// Takes the results of several callers.
pub(super) async fn finish(
    core: &Core,
    session: &mut Session,
    requests: &[Vec<Finish>],
) -> Result<Answers<Vec<FinishAnswer>>, Fault> {
    let now = session.begin(core.clock_offset()).await?;
    let results = || requests.iter().flatten().map(|finish| &finish.result);
    let mut leases = take_leases(session, results().map(|result| &result.fence)).await?;
    let policies = policies(session, results(), &leases).await?;
    let mut permits = Permits::default();
    permits.lock(session, leases.values().filter_map(|lease| lease.permit)).await?;

    let all: Vec<&AttemptResult> = results().collect();
    let fences: Vec<Fence> = all.iter().map(|result| result.fence).collect();
    let mut answers = Vec::with_capacity(all.len());
    let mut change = Change::default();
    let mut output = Pieces::default();
    while let Some(result) = all.get(answers.len()) {
        let Some(mut lease) = leases.remove(&result.fence) else {
            // In the order of what was asked: it is answered with what stands after those before it.
            std::mem::take(&mut change).write(core, session, now, Vec::new()).await?;
            answers.extend(before(core, session, &fences[answers.len()..], &leases, "status BETWEEN 1 AND 3").await?);
            continue;
        };
        if let Some(chunk) = &result.output {
            lease.output_end = output.add_last(&lease, chunk);
        }
        if lease.is_reclaimable() {
            change.unready(lease.place);
        }
        let policy = policies.get(&lease.job).copied().unwrap_or_default();
        let finished = end(core, session, &mut change, &mut permits, &lease, result, policy, now).await?;
        answers.push(FinishAnswer::Taken(finished));
    }
    output.write(core, session).await?;
    change.write(core, session, now, Vec::new()).await?;
    permits.write(session).await?;
    failpoint::pass("finish.before-commit");
    session.commit().await?;
    failpoint::pass("finish.after-commit");
    core.upkeep.removed(answers.len());
    Ok(share_out(requests, answers))
}

/// Takes back leases.
pub(super) async fn give_back(
    core: &Core,
    session: &mut Session,
    requests: &[Vec<Return>],
) -> Result<Answers<Vec<FinishAnswer>>, Fault> {
    let now = session.begin(core.clock_offset()).await?;
    let mut leases = take_leases(session, requests.iter().flatten().map(|back| &back.fence)).await?;
    let mut permits = Permits::default();
    let cancelling = leases.values().filter(|lease| lease.cancelling);
    permits.lock(session, cancelling.filter_map(|lease| lease.permit)).await?;

    let fences: Vec<Fence> = requests.iter().flatten().map(|back| back.fence).collect();
    let mut answers = Vec::with_capacity(fences.len());
    let mut change = Change::default();
    while let Some(fence) = fences.get(answers.len()) {
        let Some(lease) = leases.remove(fence) else {
            std::mem::take(&mut change).write(core, session, now, Vec::new()).await?;
            answers.extend(before(core, session, &fences[answers.len()..], &leases, "status = 5").await?);
            continue;
        };
        if lease.is_reclaimable() {
            change.unready(lease.place);
        }
        let attempt = lease.end(AttemptStatus::Returned);
        let mut freed = Vec::new();
        let state = if lease.cancelling {
            lease.end_job(core, &mut change, JobState::Cancelled, lease.counts, lease.reason.clone(), attempt);
            if let Some(permit) = lease.permit {
                freed = permits.give_back(core, session, &mut change, permit).await?;
            }
            JobState::Cancelled
        } else {
            core.registry.bucket(session, lease.place.bucket).await?;
            change.attempt(lease.place.seq, attempt);
            change.count(core, lease.place.bucket, Some(JobState::Running), Some(JobState::Ready));
            change.ready(lease.place, lease.counts);
            freed.push(lease.place.bucket);
            JobState::Ready
        };
        answers.push(FinishAnswer::Taken(Finished {
            state,
            started_at: Timestamp(lease.started_at),
            worker: lease.worker(),
            next_at: None,
            readied: readied(core, freed),
            run: crate::RunProgress::default(),
        }));
    }
    change.write(core, session, now, Vec::new()).await?;
    permits.write(session).await?;
    session.commit().await?;
    Ok(share_out(requests, answers))
}

/// Gives each caller the answers to its own.
fn share_out<Q>(requests: &[Vec<Q>], answers: Vec<FinishAnswer>) -> Answers<Vec<FinishAnswer>> {
    let mut answers = answers.into_iter();
    requests.iter().map(|request| Ok(answers.by_ref().take(request.len()).collect())).collect()
}

/// How often and when a failed job is repeated.
#[derive(Clone, Copy, Debug, Default)]
struct Policy {
    max_retries: u32,
    backoff: Backoff,
}

/// The policies of the jobs that failed; success needs none.
async fn policies(
    session: &mut Session,
    results: impl Iterator<Item = &AttemptResult>,
    leases: &HashMap<Fence, LeaseRow>,
) -> Result<HashMap<Uuid, Policy>, Fault> {
    let failed: Vec<i64> = results
        .filter(|result| result.outcome != executr_api::Outcome::Succeeded)
        .filter_map(|result| leases.get(&result.fence).map(|lease| lease.place.seq))
        .collect();
    let mut policies = HashMap::new();
    if !failed.is_empty() {
        let sql = "SELECT id, max_retries, backoff FROM executr.job WHERE seq = ANY($1)";
        for row in session.rows(sql, &[&failed]).await? {
            let backoff = row.get::<_, Option<&str>>(2).map(from_json).transpose()?.unwrap_or_default();
            policies.insert(row.get(0), Policy { max_retries: small(row.get(1)), backoff });
        }
    }
    Ok(policies)
}

/// Ends an attempt with its result.
#[allow(clippy::too_many_arguments, reason = "one transition, and what it reads and writes")]
async fn end(
    core: &Core,
    session: &mut Session,
    change: &mut Change,
    permits: &mut Permits,
    lease: &LeaseRow,
    result: &AttemptResult,
    policy: Policy,
    now: Timestamp,
) -> Result<Finished, Fault> {
    core.registry.bucket(session, lease.place.bucket).await?;
    let status = lifecycle::attempt_status(result.outcome, lease.cancelling);
    let failures = small(lease.counts.failures.into());
    let next = lifecycle::after(result, lease.cancelling, failures, policy.max_retries, &policy.backoff);
    let mut counts = lease.counts;
    if status == AttemptStatus::Failed {
        counts.failures += 1;
    }
    let attempt = AttemptEnd {
        status: status_code(status),
        exit_code: result.exit_code,
        error: result.error_message.as_deref().map(text),
        usage: result.usage.as_ref().map(json).transpose()?,
        steps: (!result.steps.is_empty()).then(|| json(&result.steps)).transpose()?,
        ..lease.end(status)
    };
    let mut freed = Vec::new();
    let mut next_at = None;
    let state = match next {
        Next::Final(state) => {
            let reason = if state == JobState::Cancelled { lease.reason.clone() } else { None };
            lease.end_job(core, change, state, counts, reason, attempt);
            state
        }
        Next::Retry(wait) => {
            change.attempt(lease.place.seq, attempt);
            if wait.is_zero() {
                change.ready(lease.place, counts);
                freed.push(lease.place.bucket);
                JobState::Ready
            } else {
                let due = now.plus(wait);
                next_at = Some(due);
                change.scheduled(lease.place, counts, due);
                JobState::Scheduled
            }
        }
    };
    if !state.is_final() {
        change.count(core, lease.place.bucket, Some(lease.state()), Some(state));
    }
    if let Some(permit) = lease.permit.filter(|_| state != JobState::Ready) {
        freed.extend(permits.give_back(core, session, change, permit).await?);
    }
    Ok(Finished {
        state,
        started_at: Timestamp(lease.started_at),
        worker: WorkerId(lease.worker.clone()),
        next_at,
        readied: readied(core, freed),
        run: crate::RunProgress::default(),
    })
}

/// Answers the first of these fences and those next to it under which no lease (of those still to be ended) is held:
/// either the attempt ended so before, or the lease is lost.
async fn before(
    core: &Core,
    session: &mut Session,
    fences: &[Fence],
    held: &HashMap<Fence, LeaseRow>,
    ended_so: &'static str,
) -> Result<Vec<FinishAnswer>, Fault> {
    let open: Vec<&Fence> = fences.iter().take_while(|fence| !held.contains_key(*fence)).collect();
    let jobs: Vec<Uuid> = open.iter().map(|fence| fence.job.0).collect();
    let attempts: Vec<i32> = open.iter().map(|fence| i32::try_from(fence.attempt).unwrap_or(i32::MAX)).collect();
    let leases: Vec<Uuid> = open.iter().map(|fence| fence.lease.0).collect();
    let sql = format!(
        "SELECT j.id, a.attempt, a.lease FROM unnest($1::uuid[], $2::int[], $3::uuid[]) AS f (job, attempt, lease)
         JOIN executr.job j ON j.id = f.job
         JOIN executr.all_attempts a ON a.seq = j.seq AND a.attempt = f.attempt AND a.lease = f.lease
         WHERE a.{ended_so}"
    );
    let rows = session.rows(sql, &[&jobs, &attempts, &leases]).await?;
    let mut ended = HashSet::new();
    for row in &rows {
        let (job, attempt, lease) = (JobId(row.get(0)), small(row.get::<_, i32>(1).into()), LeaseId(row.get(2)));
        ended.insert(Fence { job, attempt, lease });
    }
    let mut states: HashMap<JobId, JobState> = HashMap::new();
    if !ended.is_empty() {
        let ids: Vec<Uuid> = ended.iter().map(|fence| fence.job.0).collect();
        states.extend(job::by_ids(core, session, &ids).await?.into_iter().map(|record| (record.id, record.state)));
        // Their rows are gone already, their ends are still to come.
        states.extend(held.iter().map(|(fence, lease)| (fence.job, lease.state())));
    }
    let answer = |fence: &Fence| match states.get(&fence.job).filter(|_| ended.contains(fence)) {
        Some(state) => FinishAnswer::Before(*state),
        None => FinishAnswer::LeaseLost,
    };
    Ok(open.into_iter().map(answer).collect())
}
