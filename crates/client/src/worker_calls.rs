//! What workers need, as HTTP requests.

use std::time::Duration;

use async_trait::async_trait;
use executr_api::console::{ConsoleId, ConsoleLine};
use executr_api::output::OutputChunk;
use executr_api::{ApiError, BlobList, ByteStream, Fence, Orders, Report, WorkerApi};
use executr_spec::Digest;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use crate::http::{HttpClient, Repeat, with_json};

/// How long after the end of its wait an exchange is given up.
const EXCHANGE_MARGIN: Duration = Duration::from_secs(10);

#[derive(serde::Deserialize)]
struct Appended {
    end: u64,
}

#[async_trait]
impl WorkerApi for HttpClient {
    async fn exchange(&self, report: Report) -> Result<Orders, ApiError> {
        let timeout = Duration::from_millis(report.wait_ms).saturating_add(EXCHANGE_MARGIN);
        let request = with_json(self.request(Method::POST, "/worker/exchange").timeout(timeout), &report)?;
        drop(report);
        // The worker sends its next report anyway, and only it knows what is in there.
        self.json(self.send(request, Repeat::No).await?).await
    }

    async fn append_output(&self, fence: &Fence, token: &str, chunk: OutputChunk) -> Result<u64, ApiError> {
        let request = self
            .request_as(token, Method::POST, &format!("/worker/jobs/{}/output", fence.job))?
            .query(&[
                ("attempt", fence.attempt.to_string()),
                ("lease", fence.lease.to_string()),
                ("offset", chunk.offset.to_string()),
            ])
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(chunk.records.as_bytes().clone());
        // Positions that are there already are passed over.
        let appended: Appended = self.json(self.send(request, Repeat::Harmless).await?).await?;
        Ok(appended.end)
    }

    async fn blob(&self, digest: Digest, offset: u64, token: &str) -> Result<ByteStream, ApiError> {
        let path = format!("/blobs/{digest}");
        // The client's own token opens all blobs; the job's is for a client that has none.
        let request = match &self.inner.options.token {
            Some(_) => self.request(Method::GET, &path),
            None => self.request_as(token, Method::GET, &path)?,
        };
        self.download(request, offset).await
    }

    async fn missing_blobs(&self, fence: &Fence, token: &str, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        let request = self.request_as(token, Method::POST, "/worker/blobs/missing")?.query(&under(fence));
        let request = with_json(request, &BlobList { digests })?;
        let missing: BlobList = self.json(self.send(request, Repeat::Harmless).await?).await?;
        Ok(missing.digests)
    }

    async fn put_blob(&self, fence: &Fence, token: &str, digest: Digest, bytes: ByteStream) -> Result<(), ApiError> {
        let request = self.request_as(token, Method::PUT, &format!("/worker/blobs/{digest}"))?.query(&under(fence));
        self.upload(request, bytes).await
    }

    async fn join_console(&self, console: ConsoleId) -> Result<ConsoleLine, ApiError> {
        self.line(&format!("/worker/consoles/{console}")).await
    }
}

fn under(fence: &Fence) -> [(&'static str, String); 3] {
    [("job", fence.job.to_string()), ("attempt", fence.attempt.to_string()), ("lease", fence.lease.to_string())]
}
