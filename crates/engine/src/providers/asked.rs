//! What was asked already, by run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use executr_spec::Digest;
use executr_spec::workflow::Provider;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Provided, ProviderError};

/// After so long without being used, and without a job of its run here, an answer is forgotten.
const KEPT: Duration = Duration::from_secs(600);

type Answer = Arc<OnceCell<Result<Arc<Provided>, ProviderError>>>;
/// A run, and the tree in which sources find their files: of one run that is one, unless somebody made an odd plan.
type Place = (Uuid, Option<Digest>);

/// Asks each source of variables once a run.
#[derive(Debug, Default)]
pub struct Providers {
    asked: Mutex<HashMap<(Place, String), Asked>>,
    /// How many jobs of each run are here.
    here: Mutex<HashMap<Uuid, usize>>,
}

/// A job of a run that is here: answers of its run stay.
#[derive(Debug)]
pub(crate) struct Here<'a> {
    providers: &'a Providers,
    run: Uuid,
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        let mut here = self.providers.here.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jobs) = here.get_mut(&self.run) {
            *jobs -= 1;
            if *jobs > 0 {
                return;
            }
        }
        here.remove(&self.run);
        drop(here);
        // From now on they may be forgotten.
        let now = Instant::now();
        let mut asked = self.providers.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter_mut().filter(|(((run, _), _), _)| *run == self.run).for_each(|(_, asked)| asked.used = now);
    }
}

#[derive(Debug)]
struct Asked {
    answer: Answer,
    used: Instant,
}

impl Providers {
    /// Keeps what is asked in a run, as long as the guard is there.
    pub(crate) fn hold(&self, run: Uuid) -> Here<'_> {
        *self.here.lock().unwrap_or_else(PoisonError::into_inner).entry(run).or_default() += 1;
        Here { providers: self, run }
    }

    /// What `provider` says there: asked now, or earlier. Jobs that ask at the same time wait for the same answer.
    ///
    /// # Errors
    /// When it can't be asked now, which is not remembered.
    pub(crate) async fn ask<E>(
        &self,
        place: Place,
        provider: &Provider,
        ask: impl AsyncFnOnce() -> Result<Result<Provided, ProviderError>, E>,
    ) -> Result<Result<Arc<Provided>, ProviderError>, E> {
        // These cost nothing.
        if matches!(provider, Provider::Static(_) | Provider::Required(_)) {
            return Ok(ask().await?.map(Arc::new));
        }
        let key = match serde_json::to_string(provider) {
            Ok(key) => key,
            Err(error) => return Ok(Err(ProviderError::new(provider, error.to_string()))),
        };
        let answer = self.answer((place, key), Instant::now());
        answer.get_or_try_init(async || Ok(ask().await?.map(Arc::new))).await.cloned()
    }

    /// Forgets what was asked in a run.
    pub fn forget(&self, run: executr_spec::RunId) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).retain(|((asked, _), _), _| *asked != run.0);
    }

    fn answer(&self, key: (Place, String), now: Instant) -> Answer {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
            asked.retain(|((run, _), _), asked| here.contains_key(run) || now.duration_since(asked.used) < KEPT);
        }
        let asked = asked.entry(key).or_insert_with(|| Asked { answer: Answer::default(), used: now });
        asked.used = now;
        Arc::clone(&asked.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stays_while_a_job_of_its_run_is_here() {
        let (providers, run, now) = (Providers::default(), Uuid::from_u128(1), Instant::now());
        let asked = |seconds| providers.answer(((run, None), "file".to_owned()), now + Duration::from_secs(seconds));
        let (first, second) = (providers.hold(run), providers.hold(run));
        let answer = asked(0);
        drop(first);
        assert!(Arc::ptr_eq(&answer, &asked(6_000)), "a job is still here");
        drop(second);
        assert!(Arc::ptr_eq(&answer, &asked(590)), "the next job may come soon");
        assert!(!Arc::ptr_eq(&answer, &asked(1_200)));
    }
}
