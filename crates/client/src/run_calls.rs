//! What users can ask about runs, as HTTP requests.

use std::time::Duration;

use async_trait::async_trait;
use executr_api::{
    ApiError, ArtifactQuery, ArtifactView, RerunScope, RunCancel, RunClient, RunEventFollow, RunEventStream,
    RunJobView, RunQuery, RunSubmission, RunView,
};
use executr_spec::RunId;
use executr_spec::workflow::RunPlan;
use reqwest::Method;
use tokio::time::Instant;

use crate::calls::{BULK_TIMEOUT, LONGEST_WAIT};
use crate::http::{HttpClient, Repeat, with_json};
use crate::run_events;

#[async_trait]
impl RunClient for HttpClient {
    async fn submit_run(&self, run: RunSubmission) -> Result<RunView, ApiError> {
        // With a key a second submission is answered with the first one's run.
        let repeat = if run.idempotency_key.is_some() { Repeat::Harmless } else { Repeat::IfUnsent };
        let request = with_json(self.request(Method::POST, "/workflows").timeout(BULK_TIMEOUT), &run)?;
        drop(run);
        self.json(self.send(request, repeat).await?).await
    }

    async fn run(&self, id: RunId) -> Result<RunView, ApiError> {
        let request = self.request(Method::GET, &format!("/runs/{id}"));
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn runs(&self, query: RunQuery) -> Result<Vec<RunView>, ApiError> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
        add("state", query.state.map(|state| state.as_str().to_owned()));
        add("name", query.name);
        add("limit", query.limit.map(|limit| limit.to_string()));
        add("before", query.before.map(|before| before.to_string()));
        let request = self.request(Method::GET, "/runs").query(&pairs);
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn run_jobs(&self, id: RunId, from: u32, limit: Option<u32>) -> Result<Vec<RunJobView>, ApiError> {
        let mut pairs = vec![("from", from.to_string())];
        pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
        let request = self.request(Method::GET, &format!("/runs/{id}/jobs")).query(&pairs);
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn run_events(&self, id: RunId, follow: RunEventFollow) -> Result<RunEventStream, ApiError> {
        run_events::open(self.clone(), id, follow).await
    }

    async fn wait_run(&self, id: RunId, timeout: Duration) -> Result<RunView, ApiError> {
        let end = Instant::now() + timeout;
        loop {
            let wait = end.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            let request = self
                .request(Method::GET, &format!("/runs/{id}/wait"))
                .query(&[("timeout", format!("{}ms", wait.as_millis()))])
                .timeout(wait + self.inner.options.timeout);
            let run: RunView = self.json(self.send(request, Repeat::Harmless).await?).await?;
            if run.state.is_final() || Instant::now() >= end {
                return Ok(run);
            }
        }
    }

    async fn cancel_run(&self, id: RunId, how: RunCancel) -> Result<RunView, ApiError> {
        let request = self.request(Method::POST, &format!("/runs/{id}/cancel"));
        let request = if how == RunCancel::AtOnce { request.query(&[("now", "true")]) } else { request };
        // To ask for it again changes nothing.
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn rerun(&self, id: RunId, scope: RerunScope) -> Result<RunView, ApiError> {
        let scope = match scope {
            RerunScope::All => "all",
            RerunScope::Failed => "failed",
        };
        let request = self.request(Method::POST, &format!("/runs/{id}/rerun")).query(&[("scope", scope)]);
        self.json(self.send(request.timeout(BULK_TIMEOUT), Repeat::IfUnsent).await?).await
    }

    async fn run_plan(&self, id: RunId) -> Result<RunPlan, ApiError> {
        let request = self.request(Method::GET, &format!("/runs/{id}/plan"));
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn artifacts(&self, query: ArtifactQuery) -> Result<Vec<ArtifactView>, ApiError> {
        let path = query.run.map_or_else(|| "/artifacts".to_owned(), |run| format!("/runs/{run}/artifacts"));
        let limit: Vec<_> = query.limit.map(|limit| ("limit", limit.to_string())).into_iter().collect();
        let request = self.request(Method::GET, &path).query(&limit);
        self.json(self.send(request, Repeat::Harmless).await?).await
    }
}
