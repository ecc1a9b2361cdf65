//! Jobs about which the coordinator is asked, and its answers.

use std::collections::HashMap;

use executr_api::{JobState, RunState};
use executr_spec::{JobId, RunId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::code;
use super::context::{NEEDS, gather_needs};
use super::follow::Followed;
use super::locked::Runs;
use super::work::Work;
use crate::lifecycle::graph::CONDITION_SAID_NO;
use crate::postgres::change::Change;
use crate::postgres::coding::{small, text};
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::job;
use crate::postgres::permits::Permits;
use crate::postgres::session::Session;
use crate::{Decision, GateVerdict, Question, RunProgress};

/// A question, but for what the job needs.
const QUESTION: &str = "SELECT w.seq, j.id, r.id, j.spec, rj.place, w.before, r.state FROM executr.waiting w
     JOIN executr.job j ON j.seq = w.seq JOIN executr.run_job rj ON rj.seq = w.seq JOIN executr.run r ON r.seq = w.run";

/// Open questions, oldest first.
pub(super) async fn questions(session: &mut Session, limit: u32) -> Result<Vec<Question>, Fault> {
    let rows = session.rows(format!("{QUESTION} WHERE w.asked ORDER BY w.seq LIMIT $1"), &[&i64::from(limit)]).await?;
    read(session, rows).await
}

/// The open ones about these jobs.
pub(super) async fn questions_of(session: &mut Session, jobs: &[JobId]) -> Result<Vec<Question>, Fault> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
    let rows = session
        .rows(
            format!("{QUESTION} WHERE w.asked AND w.seq = ANY(ARRAY(SELECT seq FROM executr.job WHERE id = ANY($1)))"),
            &[&ids],
        )
        .await?;
    let mut found: HashMap<JobId, Question> =
        read(session, rows).await?.into_iter().map(|question| (question.job, question)).collect();
    Ok(jobs.iter().filter_map(|job| found.remove(job)).collect())
}

async fn read(session: &mut Session, rows: Vec<Row>) -> Result<Vec<Question>, Fault> {
    let seqs: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let mut needs = gather_needs(&session.rows(NEEDS, &[&seqs]).await?)?;
    let question = |row: Row| {
        let before = code::before(row.get(5));
        Ok(Question {
            job: JobId(row.get(1)),
            run: RunId(row.get(2)),
            spec: job::spec(row.get(3))?,
            index: small(row.get::<_, i32>(4).into()),
            needs: needs.remove(&row.get(0)).unwrap_or_default(),
            failed_before: before.failed,
            cancelled_before: before.cancelled,
            run_cancelling: code::run_state(row.get(6))? == RunState::Cancelling,
        })
    };
    rows.into_iter().map(question).collect()
}

/// Does what was decided, in that order.
pub(super) async fn decide(core: &Core, session: &mut Session, decisions: &[Decision]) -> Result<RunProgress, Fault> {
    let ids: Vec<Uuid> = decisions.iter().map(|decision| decision.job.0).collect();
    let sql = "SELECT id, seq, run FROM executr.job WHERE id = ANY($1) AND run IS NOT NULL";
    let rows = session.rows(sql, &[&ids]).await?;
    let jobs: HashMap<Uuid, (i64, i64)> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let mut seqs: Vec<i64> = jobs.values().map(|(_, run)| *run).collect();
    seqs.sort_unstable();
    seqs.dedup();
    let now = session.begin(core.clock_offset()).await?;
    let mut runs = Runs::lock(session, &seqs).await?;
    let asked: Vec<i64> = jobs.values().filter(|(_, run)| runs.has(*run)).map(|(job, _)| *job).collect();
    runs.load_ends(session, &asked).await?;
    let (mut change, mut permits) = (Change::default(), Permits::default());
    permits.lock(session, runs.permits()).await?;
    let mut followed = Followed::default();
    let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
    for Decision { job: id, run_cancelling, verdict } in decisions {
        let Some((job, run)) = jobs.get(&id.0).copied().filter(|(_, run)| runs.has(*run)) else { continue };
        let (_, place) = runs.place_of(job)?;
        if !runs.node(run, place)?.wait.is_some_and(|wait| wait.asked) {
            continue;
        }
        if *run_cancelling != (runs.run(run)?.state == RunState::Cancelling) {
            followed.progress.asked.push(*id);
            continue;
        }
        match verdict {
            GateVerdict::Run => {
                runs.make_ready(&mut work, run, place, &mut followed).await?;
            }
            GateVerdict::Skip => {
                let why = Some(CONDITION_SAID_NO.to_owned());
                runs.end_alone(&mut work, run, place, JobState::Skipped, why, &mut followed).await?;
            }
            GateVerdict::Fail(message) => {
                let why = Some(text(message));
                runs.end_alone(&mut work, run, place, JobState::Failed, why, &mut followed).await?;
            }
        }
        followed.give_back(&mut runs, &mut work).await?;
    }
    runs.write(&mut work).await?;
    permits.write(session).await?;
    session.commit().await?;
    Ok(followed.alone(core))
}
