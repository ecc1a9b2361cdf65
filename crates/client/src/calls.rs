//! What users can ask, as HTTP requests.

use std::time::Duration;

use async_trait::async_trait;
use executr_api::console::ConsoleLine;
use executr_api::{
    ApiError, BlobList, BulkCancelAnswer, ByteStream, CancelWait, Client, CreateToken, ErrorCode, JobQuery, JobView,
    NewToken, OutputFollow, OutputStream, StatsView, Submission, SubmittedJob, TokenView, WorkerView,
};
use executr_spec::{Digest, JobId, TokenId};
use reqwest::Method;
use tokio::time::Instant;

use crate::http::{HttpClient, Repeat, with_json};
use crate::output;

/// The longest wait asked of the server in one request.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a bulk submission may take.
pub(crate) const BULK_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(serde::Serialize)]
struct BulkCancel {
    job_ids: Vec<JobId>,
}

#[async_trait]
impl Client for HttpClient {
    async fn submit(&self, job: Submission) -> Result<JobView, ApiError> {
        // With a key of its own a second submission is answered with the first one's job.
        let repeat = if job.idempotency_key.is_some() { Repeat::Harmless } else { Repeat::IfUnsent };
        let request = with_json(self.request(Method::POST, "/jobs"), &job)?;
        self.json(self.send(request, repeat).await?).await
    }

    async fn submit_bulk(&self, jobs: Vec<Submission>) -> Result<Vec<SubmittedJob>, ApiError> {
        let all_keyed = jobs.iter().all(|job| job.idempotency_key.is_some());
        let repeat = if all_keyed { Repeat::Harmless } else { Repeat::IfUnsent };
        let request = with_json(self.request(Method::POST, "/jobs/bulk").timeout(BULK_TIMEOUT), &jobs)?;
        drop(jobs);
        self.json(self.send(request, repeat).await?).await
    }

    async fn job(&self, id: JobId) -> Result<JobView, ApiError> {
        let request = self.request(Method::GET, &format!("/jobs/{id}"));
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn jobs(&self, query: JobQuery) -> Result<Vec<JobView>, ApiError> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
        add("status", query.status.map(|status| status.to_string()));
        add("type", query.job_type.map(|job_type| job_type.to_string()));
        add("priority", query.priority.map(|priority| priority.to_string()));
        add("queue", query.queue.map(|queue| queue.to_string()));
        add("limit", query.limit.map(|limit| limit.to_string()));
        add("offset", (query.offset > 0).then(|| query.offset.to_string()));
        add("before", query.before.map(|before| before.to_string()));
        let request = self.request(Method::GET, "/jobs").query(&pairs);
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn wait(&self, id: JobId, timeout: Duration) -> Result<JobView, ApiError> {
        let end = Instant::now() + timeout;
        loop {
            let wait = end.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            let request = self
                .request(Method::GET, &format!("/jobs/{id}/wait"))
                .query(&[("timeout", format!("{}ms", wait.as_millis()))])
                .timeout(wait + self.inner.options.timeout);
            let job: JobView = self.json(self.send(request, Repeat::Harmless).await?).await?;
            if job.state.is_final() || Instant::now() >= end {
                return Ok(job);
            }
        }
    }

    async fn cancel(&self, id: JobId, wait: CancelWait) -> Result<JobView, ApiError> {
        let most = match wait {
            CancelWait::No => Duration::ZERO,
            CancelWait::AtMost(most) => most,
        };
        let end = Instant::now() + most;
        loop {
            let wait = end.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            let mut request =
                self.request(Method::POST, &format!("/jobs/{id}/cancel")).timeout(wait + self.inner.options.timeout);
            if !wait.is_zero() {
                request = request.query(&[("wait", format!("{}ms", wait.as_millis()))]);
            }
            // To ask for it again changes nothing.
            let job: JobView = self.json(self.send(request, Repeat::Harmless).await?).await?;
            if job.state.is_final() || Instant::now() >= end {
                return Ok(job);
            }
        }
    }

    async fn cancel_pending(&self, id: JobId) -> Result<(), ApiError> {
        let request = self.request(Method::DELETE, &format!("/jobs/{id}"));
        self.send(request, Repeat::IfUnsent).await.map(drop)
    }

    async fn cancel_bulk(&self, ids: Vec<JobId>) -> Result<BulkCancelAnswer, ApiError> {
        let request = with_json(self.request(Method::POST, "/jobs/bulk/cancel"), &BulkCancel { job_ids: ids })?;
        self.json(self.send(request.timeout(BULK_TIMEOUT), Repeat::IfUnsent).await?).await
    }

    async fn output(&self, id: JobId, follow: OutputFollow) -> Result<OutputStream, ApiError> {
        output::open(self.clone(), id, follow).await
    }

    async fn console(&self, id: JobId) -> Result<ConsoleLine, ApiError> {
        self.line(&format!("/jobs/{id}/console")).await
    }

    async fn stats(&self) -> Result<StatsView, ApiError> {
        let request = self.request(Method::GET, "/admin/stats");
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, ApiError> {
        let request = self.request(Method::GET, "/admin/executors");
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn has_blob(&self, digest: Digest) -> Result<bool, ApiError> {
        let request = self.request(Method::HEAD, &format!("/blobs/{digest}"));
        match self.send(request, Repeat::Harmless).await {
            Ok(_) => Ok(true),
            // The answer to HEAD has no body, so all there is to go by is the status.
            Err(error) if error.code == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn missing_blobs(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        let request = with_json(self.request(Method::POST, "/blobs/missing"), &BlobList { digests })?;
        let missing: BlobList = self.json(self.send(request, Repeat::Harmless).await?).await?;
        Ok(missing.digests)
    }

    async fn read_blob(&self, digest: Digest, offset: u64) -> Result<ByteStream, ApiError> {
        self.download(self.request(Method::GET, &format!("/blobs/{digest}")), offset).await
    }

    async fn put_blob(&self, digest: Digest, bytes: ByteStream) -> Result<(), ApiError> {
        self.upload(self.request(Method::PUT, &format!("/blobs/{digest}")), bytes).await
    }

    async fn create_token(&self, token: CreateToken) -> Result<NewToken, ApiError> {
        let request = with_json(self.request(Method::POST, "/admin/tokens"), &token)?;
        self.json(self.send(request, Repeat::IfUnsent).await?).await
    }

    async fn tokens(&self) -> Result<Vec<TokenView>, ApiError> {
        let request = self.request(Method::GET, "/admin/tokens");
        self.json(self.send(request, Repeat::Harmless).await?).await
    }

    async fn revoke_token(&self, id: TokenId) -> Result<(), ApiError> {
        let request = self.request(Method::DELETE, &format!("/admin/tokens/{id}"));
        self.send(request, Repeat::IfUnsent).await.map(drop)
    }
}
