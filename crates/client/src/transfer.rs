//! Blobs on their way: bodies without a bound but that of the server, in both directions.

use std::time::Duration;

use executr_api::{ApiError, ByteStream};
use futures_util::{StreamExt, stream};
use reqwest::header::{CONTENT_TYPE, RANGE};
use reqwest::{Body, RequestBuilder};
use tokio::sync::oneshot;

use crate::http::{HttpClient, Repeat};

/// How long a transfer may take: as long as it takes, for the server ends those that stand still.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

impl HttpClient {
    /// Sends `bytes` as the body of `request`.
    pub(crate) async fn upload(&self, request: RequestBuilder, bytes: ByteStream) -> Result<(), ApiError> {
        // An error of the source must come back as it is, not as what the transport makes of it.
        let (report, mut reported) = oneshot::channel();
        let mut report = Some(report);
        let body = bytes.map(move |part| {
            part.inspect_err(|error| {
                if let Some(report) = report.take() {
                    // Nobody listens when the call was given up.
                    let _ = report.send(error.clone());
                }
            })
        });
        let request = request
            .header(CONTENT_TYPE, "application/octet-stream")
            .timeout(TRANSFER_TIMEOUT)
            .body(Body::wrap_stream(body));
        let sent = self.send(request, Repeat::No).await;
        match (sent, reported.try_recv()) {
            (_, Ok(error)) | (Err(error), Err(_)) => Err(error),
            (Ok(_), Err(_)) => Ok(()),
        }
    }

    /// Reads the answer to `request` from `offset` on.
    pub(crate) async fn download(&self, request: RequestBuilder, offset: u64) -> Result<ByteStream, ApiError> {
        let mut request = request.timeout(TRANSFER_TIMEOUT);
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
