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

/// After so long without being used an answer is forgotten.
const KEPT: Duration = Duration::from_secs(600);

type Answer = Arc<OnceCell<Result<Arc<Provided>, ProviderError>>>;
/// A run, and the tree in which sources find their files: of one run that is one, unless somebody made an odd plan.
type Place = (Uuid, Option<Digest>);

/// Asks each source of variables once a run.
#[derive(Debug, Default)]
pub struct Providers {
    asked: Mutex<HashMap<(Place, String), Asked>>,
}

#[derive(Debug)]
struct Asked {
    answer: Answer,
    used: Instant,
}

impl Providers {
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
        let answer = self.answer((place, key));
        answer.get_or_try_init(async || Ok(ask().await?.map(Arc::new))).await.cloned()
    }

    /// Forgets what was asked in a run.
    pub fn forget(&self, run: executr_spec::RunId) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).retain(|((asked, _), _), _| *asked != run.0);
    }

    fn answer(&self, key: (Place, String)) -> Answer {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, asked| now.duration_since(asked.used) < KEPT);
        let asked = asked.entry(key).or_insert_with(|| Asked { answer: Answer::default(), used: now });
        asked.used = now;
        Arc::clone(&asked.answer)
    }
}
