//! Conditions that only the coordinator can decide: the store asks about a job when all its needs are final.
//!
//! Asked at once by whoever made the last need final, and now and then by everybody, so that a coordinator's death
//! leaves no question open. Two that answer the same question say the same.

use std::sync::Arc;
use std::time::Duration;

use executr_api::ApiError;
use executr_spec::JobId;
use executr_store::{Decision, GateVerdict, Question};
use tokio::time::sleep;

use super::condition;
use crate::core::Core;
use crate::refusal;

/// So many questions are decided in one transaction.
const AT_A_TIME: u32 = 1_000;
/// How often the store is asked for questions that nobody answered.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Core {
    /// These jobs are asked about: decides about them, together with others that are.
    pub(super) fn ask(self: &Arc<Self>, jobs: &[JobId]) {
        // Every one is pushed; at most the first starts somebody.
        let start = jobs.iter().fold(false, |start, job| self.asked.push(*job) | start);
        if start {
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
        self.decide(questions).await
    }

    async fn decide(self: &Arc<Self>, questions: Vec<Question>) -> Result<(), ApiError> {
        if questions.is_empty() {
            return Ok(());
        }
        let mut decisions = Vec::with_capacity(questions.len());
        for question in questions {
            let outline = self.outline(question.run).await?;
            let verdict = match outline.conditions.get(&question.index) {
                Some(condition) => condition::verdict(condition, &question),
                None => GateVerdict::Fail("its condition isn't in the run's plan; upgrade this server".to_owned()),
            };
            decisions.push(Decision { job: question.job, verdict });
        }
        let progress = self.runs_kept()?.decide(decisions).await.map_err(refusal::store)?;
        self.progressed(&progress);
        Ok(())
    }
}

/// Answers what nobody answered, until it is dropped.
pub(crate) async fn ask_now_and_then(core: Arc<Core>) {
    let Some(store) = core.store.runs() else { return };
    loop {
        match store.questions(AT_A_TIME).await.map_err(refusal::store) {
            Ok(questions) => {
                let more = questions.len() >= AT_A_TIME as usize;
                match core.decide(questions).await {
                    Ok(()) if more => continue,
                    Ok(()) => {}
                    Err(error) => tracing::warn!(%error, "could not decide about jobs; trying again soon"),
                }
            }
            Err(error) => tracing::warn!(%error, "could not look which jobs are asked about; trying again soon"),
        }
        sleep(LOOK_EVERY).await;
    }
}
