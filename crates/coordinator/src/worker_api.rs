//! The calls of workers.

use async_trait::async_trait;
use executr_api::console::{ConsoleId, ConsoleLine};
use executr_api::output::OutputChunk;
use executr_api::{ApiError, ByteStream, Fence, Orders, Report, WorkerApi};
use executr_spec::Digest;

use crate::coordinator::Coordinator;
use crate::exchange;

/// Tokens are not looked at here: whoever calls in the same process is trusted, and the server has checked.
#[async_trait]
impl WorkerApi for Coordinator {
    async fn exchange(&self, report: Report) -> Result<Orders, ApiError> {
        exchange::exchange(self.core(), report).await
    }

    async fn append_output(&self, fence: &Fence, _token: &str, chunk: OutputChunk) -> Result<u64, ApiError> {
        self.core().append_output(fence, chunk).await
    }

    async fn blob(&self, digest: Digest, offset: u64, _token: &str) -> Result<ByteStream, ApiError> {
        self.core().blob(digest, offset).await
    }

    async fn missing_blobs(&self, fence: &Fence, _token: &str, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        self.core().must_hold(fence).await?;
        self.core().missing_blobs(digests).await
    }

    async fn put_blob(&self, fence: &Fence, _token: &str, digest: Digest, bytes: ByteStream) -> Result<(), ApiError> {
        self.core().put_attempt_blob(fence, digest, bytes).await
    }

    async fn join_console(&self, console: ConsoleId) -> Result<ConsoleLine, ApiError> {
        self.core().join_console(console)
    }
}
