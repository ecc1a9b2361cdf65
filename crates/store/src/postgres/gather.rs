//! Commands of one kind that arrive while one is under way are carried out together, as one transaction.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
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
    match carry_out_whole(core, unit, &questions).await {
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
                    None => match carry_out_whole(core, unit, &vec![question]).await {
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

/// Carries out commands; a defect that panics is an error to those who asked, and the gatherer lives on.
async fn carry_out_whole<Q: Send + Sync, A: Send>(
    core: &Core,
    unit: Unit<Vec<Q>, Answers<A>>,
    questions: &Vec<Q>,
) -> Result<Answers<A>, StoreError> {
    // What a unit leaves behind when it is cut off anywhere, its connection takes along.
    match AssertUnwindSafe(core.carry_out(questions, unit)).catch_unwind().await {
        Ok(answers) => answers,
        Err(_) => Err(StoreError::Database("a defect of this program; its log says where it is".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use executr_tests::postgres;

    use super::*;
    use crate::postgres::PostgresOptions;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_is_an_error_to_whom_it_concerns_and_to_nobody_else() {
        let Some(database) = postgres::database() else { return };
        let core = Arc::new(Core::new(PostgresOptions::new(database.url())).expect("a URL"));
        let gatherer: Gatherer<u32, u32> = Gatherer::start(core.clone(), 100, |_, session, numbers, _| {
            Box::pin(async move {
                session.begin(0).await?;
                assert!(!numbers.contains(&13), "a defect");
                session.commit().await?;
                Ok(numbers.iter().map(|number| Ok(number * 2)).collect())
            })
        });
        // All of one batch: the other commands are gathered before the task gets to run.
        let asked = [1, 13, 2].map(|number| gatherer.ask(number, 1));
        let [one, bad, two] = asked;
        let (one, bad, two) = tokio::join!(one, bad, two);
        assert_eq!((one.expect("carried out"), two.expect("carried out")), (2, 4));
        assert!(matches!(bad, Err(StoreError::Database(_))));
        assert_eq!(gatherer.ask(3, 1).await.expect("it lives on"), 6);
        assert!(core.counters().connections <= 8, "what was cut off is closed");
    }
}
