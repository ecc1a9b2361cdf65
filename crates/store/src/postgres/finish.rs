//! Taking results, and leases given back unstarted.

use std::collections::{HashMap, HashSet};

use executr_api::{AttemptResult, AttemptStatus, Fence, JobState, failpoint};
use executr_spec::{Backoff, JobId, LeaseId, Timestamp};
use uuid::Uuid;

use super::change::{AttemptEnd, Change, Counts, readied};
use super::coding::{from_json, json, small, status_code, text};
use super::core::Core;
use super::fault::Fault;
use super::gather::Answers;
use super::job;
use super::lease::{LeaseRow, take_leases};
use super::output::Pieces;
use super::permits::Permits;
use super::runs::{Ending, ExitCode, Followed, Runs, Work};
use super::session::Session;
use crate::lifecycle::{self, Next};
use crate::{Finish, FinishAnswer, Finished, Handed, Return};

/// Takes the results of several callers.
pub(super) async fn finish(
    core: &Core,
    session: &mut Session,
    requests: &[Vec<Finish>],
) -> Result<Answers<Vec<FinishAnswer>>, Fault> {
    let results = || requests.iter().flatten().map(|finish| &finish.result);
    let (now, mut runs) = Runs::begin(core, session, results().map(|result| &result.fence)).await?;
    let mut leases = take_leases(session, results().map(|result| &result.fence)).await?;
    let policies = policies(session, results(), &leases).await?;
    let mut permits = Permits::default();
    let keys = look_into_runs(session, &mut runs, &leases).await?;
    permits.lock(session, keys.into_iter().chain(leases.values().filter_map(|lease| lease.permit))).await?;

    let all: Vec<&AttemptResult> = results().collect();
    let fences: Vec<Fence> = all.iter().map(|result| result.fence).collect();
    let mut answers = Vec::with_capacity(all.len());
    let mut change = Change::default();
    let mut output = Pieces::default();
    while let Some(result) = all.get(answers.len()) {
        let Some(mut lease) = leases.remove(&result.fence) else {
            // In the order of what was asked: it is answered with what stands after those before it.
            let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
            runs.write(&mut work).await?;
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
        let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
        let finished = end(&mut work, &mut runs, &lease, result, policy).await?;
        answers.push(FinishAnswer::Taken(finished));
    }
    output.write(core, session).await?;
    runs.write(&mut Work { core, session, change: &mut change, permits: &mut permits, now }).await?;
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
    let (now, mut runs) = Runs::begin(core, session, requests.iter().flatten().map(|back| &back.fence)).await?;
    let mut leases = take_leases(session, requests.iter().flatten().map(|back| &back.fence)).await?;
    let mut permits = Permits::default();
    let keys = look_into_runs(session, &mut runs, &leases).await?;
    let cancelling = leases.values().filter(|lease| lease.cancelling);
    permits.lock(session, keys.into_iter().chain(cancelling.filter_map(|lease| lease.permit))).await?;

    let fences: Vec<Fence> = requests.iter().flatten().map(|back| back.fence).collect();
    let mut answers = Vec::with_capacity(fences.len());
    let mut change = Change::default();
    while let Some(fence) = fences.get(answers.len()) {
        let Some(lease) = leases.remove(fence) else {
            let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
            runs.write(&mut work).await?;
            answers.extend(before(core, session, &fences[answers.len()..], &leases, "status = 5").await?);
            continue;
        };
        if lease.is_reclaimable() {
            change.unready(lease.place);
        }
        core.registry.bucket(session, lease.place.bucket).await?;
        let attempt = lease.end(AttemptStatus::Returned);
        let job = lease.place.seq;
        let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
        let mut followed = Followed::default();
        let state = if lease.cancelling {
            lease.end_job(core, work.change, JobState::Cancelled, lease.counts, lease.reason.clone(), attempt);
            followed = Followed::freeing(lease.permit);
            JobState::Cancelled
        } else {
            work.change.attempt(job, attempt);
            again(&mut work, &mut runs, &lease, lease.counts, &mut followed).await?;
            JobState::Ready
        };
        if lease.run.is_some() {
            runs.let_go(job);
            if lease.cancelling {
                let ending = Ending {
                    state,
                    attempt: lease.counts.attempt,
                    exit_code: ExitCode::OfBefore,
                    message: lease.reason.clone(),
                };
                runs.ended(&mut work, job, &ending, &mut followed).await?;
            } else {
                runs.retried(job, fence.attempt, None, now, &mut followed)?;
            }
        }
        followed.give_back(&mut runs, &mut work).await?;
        answers.push(FinishAnswer::Taken(lease.finished(core, state, None, followed)));
    }
    runs.write(&mut Work { core, session, change: &mut change, permits: &mut permits, now }).await?;
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

/// Reads what may follow in runs from the ends of these jobs; returns the keys that it needs.
async fn look_into_runs(
    session: &mut Session,
    runs: &mut Runs,
    leases: &HashMap<Fence, LeaseRow>,
) -> Result<Vec<i64>, Fault> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let jobs: Vec<i64> = leases.values().filter(|lease| lease.run.is_some()).map(|lease| lease.place.seq).collect();
    runs.load_ends(session, &jobs).await?;
    Ok(runs.permits().collect())
}

/// The job is ready for another attempt.
async fn again(
    work: &mut Work<'_>,
    runs: &mut Runs,
    lease: &LeaseRow,
    counts: Counts,
    followed: &mut Followed,
) -> Result<(), Fault> {
    let place = if lease.run.is_some() { runs.enter(work, lease.place).await? } else { lease.place };
    work.change.count(work.core, lease.place.bucket, Some(lease.state()), None);
    work.change.count(work.core, place.bucket, None, Some(JobState::Ready));
    work.change.ready(place, counts);
    followed.readied.push(place.bucket);
    Ok(())
}

/// Ends an attempt with its result.
async fn end(
    work: &mut Work<'_>,
    runs: &mut Runs,
    lease: &LeaseRow,
    result: &AttemptResult,
    policy: Policy,
) -> Result<Finished, Fault> {
    let core = work.core;
    core.registry.bucket(work.session, lease.place.bucket).await?;
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
    let message = attempt.error.clone();
    let job = lease.place.seq;
    let mut followed = Followed::default();
    let mut next_at = None;
    let state = match next {
        Next::Final(state) => {
            let reason = if state == JobState::Cancelled { lease.reason.clone() } else { None };
            lease.end_job(core, work.change, state, counts, reason, attempt);
            state
        }
        Next::Retry(wait) => {
            work.change.attempt(job, attempt);
            if wait.is_zero() {
                again(work, runs, lease, counts, &mut followed).await?;
                JobState::Ready
            } else {
                let due = work.now.plus(wait);
                next_at = Some(due);
                work.change.scheduled(lease.place, counts, due);
                work.change.count(core, lease.place.bucket, Some(lease.state()), Some(JobState::Scheduled));
                JobState::Scheduled
            }
        }
    };
    followed.freed.extend(lease.permit.filter(|_| state != JobState::Ready));
    if lease.run.is_some() {
        runs.let_go(job);
        if state.is_final() {
            let message = match state {
                JobState::Completed => None,
                JobState::Cancelled => lease.reason.clone(),
                _ => message,
            };
            let exit_code = ExitCode::Is(result.exit_code);
            let ending = Ending { state, attempt: counts.attempt, exit_code, message };
            if lifecycle::fails_run(result, next) {
                runs.take_no_failure(work.session, job).await?;
            }
            runs.handed(job, Handed { outputs: result.outputs.clone(), artifacts: result.artifacts.clone() })?;
            runs.ended(work, job, &ending, &mut followed).await?;
        } else {
            runs.retried(job, result.fence.attempt, message, work.now, &mut followed)?;
        }
    }
    followed.give_back(runs, work).await?;
    Ok(lease.finished(core, state, next_at, followed))
}

impl LeaseRow {
    fn finished(&self, core: &Core, state: JobState, next_at: Option<Timestamp>, followed: Followed) -> Finished {
        Finished {
            state,
            started_at: Timestamp(self.started_at),
            worker: self.worker(),
            next_at,
            readied: readied(core, followed.readied),
            run: followed.progress,
        }
    }
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
