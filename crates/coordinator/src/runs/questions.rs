//! Conditions that only the coordinator can decide: the store asks about a job when all its needs are final.
//!
//! Asked at once by whoever made the last need final, and now and then by everybody, so that a coordinator's death
//! leaves no question open. Two that answer the same question say the same.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use executr_api::{ApiError, ErrorCode};
use executr_spec::JobId;
use executr_store::{Decision, GateVerdict, Question};
use tokio::time::sleep;

use super::condition;
use crate::core::Core;
use crate::refusal;

/// So many questions are decided in one transaction.
const AT_A_TIME: u32 = 1_000;
/// The most that are read at once, when those before them can't be decided.
const MOST: u32 = 20_000;
/// How often the store is asked for questions that nobody answered.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Core {
    /// These jobs are asked about: decides about them, together with others that are.
    pub(super) fn ask(self: &Arc<Self>, jobs: &[JobId]) {
        // Every one is pushed first, so that whoever is started takes many at once.
        let starts = jobs.iter().filter(|job| self.asked.push(**job)).count();
        for _ in 0..starts {
            let core = Arc::clone(self);
            tokio::spawn(async move {
                let mut pilot = core.asked.board();
                while let Some(jobs) = pilot.next(AT_A_TIME as usize, |_| 1) {
                    if let Err(error) = core.answer(&jobs).await {
                        tracing::warn!(%error, jobs = jobs.len(), "could not decide about jobs; trying again soon");
                    }
                }
            });
        }
    }

    async fn answer(self: &Arc<Self>, jobs: &[JobId]) -> Result<(), ApiError> {
        let questions = self.runs_kept()?.questions_of(jobs).await.map_err(refusal::store)?;
        self.decide(questions).await.map(drop)
    }

    /// Decides as many as can be. Returns how many were passed over, since their runs' plans can't be read.
    async fn decide(self: &Arc<Self>, questions: Vec<Question>) -> Result<usize, ApiError> {
        if questions.is_empty() {
            return Ok(0);
        }
        let all = questions.len();
        let mut decisions = Vec::with_capacity(all);
        let mut unreadable = HashSet::new();
        for question in questions {
            if unreadable.contains(&question.run) {
                continue;
            }
            let outline = match self.outline(question.run).await {
                Ok(outline) => outline,
                Err(error) if error.code == ErrorCode::Unavailable => return Err(error),
                Err(error) => {
                    // It may have just been deleted, or wait for a newer server; others don't.
                    tracing::warn!(%error, run_id = %question.run, "could not decide about the jobs of a run");
                    unreadable.insert(question.run);
                    continue;
                }
            };
            let verdict = match outline.conditions.get(&question.index) {
                Some(condition) => condition::verdict(condition, &question),
                None => GateVerdict::Fail("its condition isn't in the run's plan; upgrade this server".to_owned()),
            };
            decisions.push(Decision { job: question.job, run_cancelling: question.run_cancelling, verdict });
        }
        let passed_over = all - decisions.len();
        let progress = self.runs_kept()?.decide(decisions).await.map_err(refusal::store)?;
        self.progressed(&progress);
        Ok(passed_over)
    }
}

/// Answers what nobody answered, until it is dropped.
pub(crate) async fn ask_now_and_then(core: Arc<Core>) {
    let Some(store) = core.store.runs() else { return };
    let mut limit = AT_A_TIME;
    loop {
        match store.questions(limit).await.map_err(refusal::store) {
            Ok(questions) => {
                let all = questions.len();
                let more = all >= limit as usize;
                match core.decide(questions).await {
                    Ok(passed_over) => {
                        // They come first again; what stands behind them is to be seen too.
                        let skip = u32::try_from(passed_over).unwrap_or(MOST).min(MOST - AT_A_TIME);
                        let before = std::mem::replace(&mut limit, AT_A_TIME + skip);
                        if more && (passed_over < all || limit > before) {
                            continue;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "could not decide about jobs; trying again soon"),
                }
            }
            Err(error) => tracing::warn!(%error, "could not look which jobs are asked about; trying again soon"),
        }
        sleep(LOOK_EVERY).await;
    }
}
