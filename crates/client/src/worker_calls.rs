//! What workers need, as HTTP requests.

use std::time::Duration;

use async_trait::async_trait;
use executr_api::output::OutputChunk;
use executr_api::{ApiError, ByteStream, Fence, Orders, Report, WorkerApi};
use executr_spec::Digest;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, RANGE};

use crate::http::{HttpClient, Repeat, with_json};

/// How long after the end of its wait an exchange is given up.
const EXCHANGE_MARGIN: Duration = Duration::from_secs(10);
/// How long a download may stand still.
const BLOB_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

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
        let mut request = match &self.inner.options.token {
            Some(_) => self.request(Method::GET, &path),
            None => self.request_as(token, Method::GET, &path)?,
        }
        .timeout(BLOB_TIMEOUT);
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = match self.send(request, Repeat::Harmless).await {
            // Exactly all of it is here already.
            Err(error) if offset > 0 && error.context.get("size") == Some(&offset.to_string()) => {
                return Ok(stream::empty().boxed());
            }
            other => other?,
        };
        let client = self.clone();
        Ok(response.bytes_stream().map(move |part| part.map_err(|error| client.translate(&error))).boxed())
    }
}
