//! Access tokens, and looking them up without asking the store at every request.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use executr_api::{ApiError, CreateToken, ErrorCode, Fence, NewToken, TokenView};
use executr_spec::{Digest, JobId, TokenId};
use executr_store::TokenRecord;
use tokio::time::Instant;
use uuid::Uuid;

use crate::core::Core;
use crate::job_token;
use crate::lock::Lock;
use crate::refusal;

/// For so long an answer of the store is believed. What another coordinator revoked opens nothing after that.
const BELIEVED: Duration = Duration::from_secs(5);
/// So many answers are remembered; then all are dropped, so that guessing fills no memory.
const REMEMBERED: usize = 10_000;

/// The store's last answers.
#[derive(Debug, Default)]
pub(crate) struct TokenCache(Lock<State>);

#[derive(Debug, Default)]
struct State {
    access: HashMap<Digest, (Instant, Option<TokenRecord>)>,
    any: Option<(Instant, bool)>,
    /// Live leases by their job.
    jobs: HashMap<JobId, (Instant, Fence)>,
}

fn believed<T: Clone>(answer: Option<&(Instant, T)>) -> Option<T> {
    answer.filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, answer)| answer.clone())
}

fn remember<K: std::hash::Hash + Eq, T>(answers: &mut HashMap<K, (Instant, T)>, key: K, answer: T) {
    if answers.len() >= REMEMBERED {
        answers.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
    }
    answers.insert(key, (Instant::now(), answer));
}

impl TokenCache {
    /// The job's lease is over: its token opens nothing from now on.
    pub(crate) fn forget_job(&self, job: JobId) {
        let mut state = self.0.hold();
        if !state.jobs.is_empty() {
            state.jobs.remove(&job);
        }
    }

    fn clear(&self) {
        let mut state = self.0.hold();
        state.access.clear();
        state.any = None;
    }
}

fn view(record: TokenRecord) -> TokenView {
    TokenView {
        id: record.id,
        role: record.role,
        name: record.name,
        tenant: record.tenant,
        created_at: record.created_at,
        expires_at: record.expires_at,
    }
}

/// A new secret: `executr_` and 32 bytes in URL-safe base64. Three random UUIDs hold 366 random bits from the operating
/// system's seeded generator; hashing spreads them over 256.
fn secret() -> String {
    let mut random = [0; 48];
    for part in random.chunks_exact_mut(16) {
        part.copy_from_slice(Uuid::new_v4().as_bytes());
    }
    format!("executr_{}", URL_SAFE_NO_PAD.encode(Digest::of(&random).0))
}

impl Core {
    pub(crate) async fn create_token(&self, asked: CreateToken) -> Result<NewToken, ApiError> {
        if let Some(name) = &asked.name
            && (name.is_empty() || name.len() > 200 || name.contains(char::is_control))
        {
            return Err(
                refusal::bad("a token's name has 1 to 200 bytes without control characters").with("field", "name")
            );
        }
        let secret = secret();
        let now = self.store.now().await.map_err(refusal::store)?;
        if asked.expires_at.is_some_and(|expires| expires <= now) {
            return Err(
                refusal::bad("`expires_at` has passed; such a token would open nothing").with("field", "expires_at")
            );
        }
        let record = TokenRecord {
            id: TokenId(Uuid::new_v4()),
            hash: Digest::of(secret.as_bytes()),
            role: asked.role,
            name: asked.name,
            tenant: asked.tenant.unwrap_or_default(),
            created_at: now,
            expires_at: asked.expires_at,
        };
        self.store.put_token(record.clone()).await.map_err(refusal::store)?;
        self.tokens.clear();
        Ok(NewToken { token: view(record), secret })
    }

    pub(crate) async fn list_tokens(&self) -> Result<Vec<TokenView>, ApiError> {
        Ok(self.store.tokens().await.map_err(refusal::store)?.into_iter().map(view).collect())
    }

    pub(crate) async fn revoke_token(&self, id: TokenId) -> Result<(), ApiError> {
        let was = self.store.revoke_token(id).await.map_err(refusal::store)?;
        self.tokens.clear();
        if was { Ok(()) } else { Err(ApiError::new(ErrorCode::NotFound, format!("there is no token {id}"))) }
    }

    pub(crate) async fn authenticate(&self, secret: &str) -> Result<Option<TokenView>, ApiError> {
        let hash = Digest::of(secret.as_bytes());
        let cached = believed(self.tokens.0.hold().access.get(&hash));
        let record = match cached {
            Some(record) => record,
            None => {
                let record = self.store.token_by_hash(hash).await.map_err(refusal::store)?;
                remember(&mut self.tokens.0.hold().access, hash, record.clone());
                record
            }
        };
        let now = self.clock.now();
        Ok(record.filter(|record| record.expires_at.is_none_or(|expires| expires > now)).map(view))
    }

    pub(crate) async fn has_tokens(&self) -> Result<bool, ApiError> {
        if let Some(any) = believed(self.tokens.0.hold().any.as_ref()) {
            return Ok(any);
        }
        let any = !self.store.tokens().await.map_err(refusal::store)?.is_empty();
        self.tokens.0.hold().any = Some((Instant::now(), any));
        Ok(any)
    }

    pub(crate) async fn job_token(&self, token: &str) -> Result<Option<Fence>, ApiError> {
        let Some((job, lease)) = job_token::read(token) else { return Ok(None) };
        // Compared as digests: how long that takes says nothing of how much of a guess was right.
        let asked = Digest::of(lease.0.as_bytes());
        let is_asked = |fence: &Fence| Digest::of(fence.lease.0.as_bytes()) == asked;
        let known = believed(self.tokens.0.hold().jobs.get(&job));
        if let Some(fence) = known.filter(is_asked) {
            return Ok(Some(fence));
        }
        // Another lease may have begun elsewhere meanwhile.
        let fence = self.store.lease_of(job).await.map_err(refusal::store)?.map(|lease| lease.fence).filter(is_asked);
        if let Some(fence) = fence {
            remember(&mut self.tokens.0.hold().jobs, job, fence);
        }
        Ok(fence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let (one, other) = (secret(), secret());
        assert_eq!(one.len(), "executr_".len() + 43);
        assert_ne!(one, other);
    }
}
