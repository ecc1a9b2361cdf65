//! What was asked already, by run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use executr_spec::workflow::Provider;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Asking, Provided, ProviderError, ask};

/// After so long without being used an answer is forgotten.
const KEPT: Duration = Duration::from_secs(600);

type Answer = Arc<OnceCell<Result<Arc<Provided>, ProviderError>>>;

/// Asks each source of variables once a run.
#[derive(Debug, Default)]
pub struct Providers {
    asked: Mutex<HashMap<(Uuid, String), Asked>>,
}

#[derive(Debug)]
struct Asked {
    answer: Answer,
    used: Instant,
}

impl Providers {
    /// What `provider` says in `run`: asked now, or earlier. Jobs that ask at the same time wait for the same answer.
    pub(crate) async fn ask(
        &self,
        run: Uuid,
        provider: &Provider,
        asking: Asking<'_>,
    ) -> Result<Arc<Provided>, ProviderError> {
        // These cost nothing.
        if matches!(provider, Provider::Static(_) | Provider::Required(_)) {
            return ask(provider, asking).await.map(Arc::new);
        }
        let key = serde_json::to_string(provider).map_err(|error| ProviderError::new(provider, error.to_string()))?;
        let answer = self.answer((run, key));
        answer.get_or_init(async || ask(provider, asking).await.map(Arc::new)).await.clone()
    }

    /// Forgets what was asked in a run.
    pub fn forget(&self, run: executr_spec::RunId) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).retain(|(asked, _), _| *asked != run.0);
    }

    fn answer(&self, key: (Uuid, String)) -> Answer {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, asked| now.duration_since(asked.used) < KEPT);
        let asked = asked.entry(key).or_insert_with(|| Asked { answer: Answer::default(), used: now });
        asked.used = now;
        Arc::clone(&asked.answer)
    }
}
