//! Commands of one kind that arrive while one is under way are carried out together, as one transaction.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::core::{Core, Unit};
use crate::StoreError;

/// What became of each caller's command.
pub(super) type Answers<A> = Vec<Result<A, StoreError>>;

/// The most callers whose commands one transaction takes.
const MOST_CALLERS: usize = 1_000;

struct Asked<Q, A> {
    question: Q,
    weight: usize,
    answer: oneshot::Sender<Result<A, StoreError>>,
}

/// Where callers put their commands.
pub(super) struct Gatherer<Q, A>(mpsc::UnboundedSender<Asked<Q, A>>);

impl<Q: Send + Sync + 'static, A: Send + 'static> Gatherer<Q, A> {
    /// Starts a task that gathers commands up to about `most` weight and carries them out with `unit`. It ends with the last gatherer.
    pub(super) fn start(core: Arc<Core>, most: usize, unit: Unit<Vec<Q>, Answers<A>>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(gather(core, most, unit, receiver));
        Self(sender)
    }

    /// Carries out a command together with those of others. `weight` is about how many rows it concerns.
    pub(super) async fn ask(&self, question: Q, weight: usize) -> Result<A, StoreError> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        self.0.send(Asked { question, weight, answer }).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn gather<Q: Send + Sync, A: Send>(
    core: Arc<Core>,
    most: usize,
    unit: Unit<Vec<Q>, Answers<A>>,
    mut receiver: mpsc::UnboundedReceiver<Asked<Q, A>>,
) {
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(asked) => asked,
            None => match receiver.recv().await {
                Some(asked) => asked,
                None => return,
            },
        };
        // Whoever is about to ask gets the chance to be in this batch.
        tokio::task::yield_now().await;
        let mut weight = first.weight;
        let mut questions = vec![first.question];
        let mut answers = vec![first.answer];
        while weight < most && questions.len() < MOST_CALLERS {
            let Ok(next) = receiver.try_recv() else { break };
            if weight + next.weight > most {
                held = Some(next);
                break;
            }
            weight += next.weight;
            questions.push(next.question);
            answers.push(next.answer);
        }
        carry_out(&core, unit, questions, answers).await;
    }
}

async fn carry_out<Q: Send + Sync, A: Send>(
    core: &Core,
    unit: Unit<Vec<Q>, Answers<A>>,
    questions: Vec<Q>,
    answers: Vec<oneshot::Sender<Result<A, StoreError>>>,
) {
    match core.carry_out(&questions, unit).await {
        Ok(told) => {
            for (answer, told) in answers.into_iter().zip(told) {
                // A caller that went away does not need it.
                drop(answer.send(told));
            }
        }
        Err(error) if questions.len() == 1 => {
            if let Some(answer) = answers.into_iter().next() {
                drop(answer.send(Err(error)));
            }
        }
        Err(error) => {
            // One of them is at fault: the others shall not suffer.
            let transient = error.is_transient().then(|| error.to_string());
            for (question, answer) in questions.into_iter().zip(answers) {
                let told = match &transient {
                    Some(told) => Err(StoreError::Unavailable(told.clone())),
                    None => match core.carry_out(&vec![question], unit).await {
                        Ok(told) => told.into_iter().next().unwrap_or_else(|| {
                            Err(StoreError::Database("a command was left without an answer".to_owned()))
                        }),
                        Err(error) => Err(error),
                    },
                };
                drop(answer.send(told));
            }
        }
    }
}
