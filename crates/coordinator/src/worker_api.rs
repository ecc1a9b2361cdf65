//! The calls of workers.

use async_trait::async_trait;
use executr_api::output::OutputChunk;
use executr_api::{ApiError, ByteStream, Fence, Orders, Report, WorkerApi};
use executr_spec::Digest;

use crate::coordinator::{Coordinator, missing};

/// Tokens are not looked at here: whoever calls in the same process is trusted, and the server has checked.
#[async_trait]
impl WorkerApi for Coordinator {
    async fn exchange(&self, _report: Report) -> Result<Orders, ApiError> {
        Err(missing())
    }

    async fn append_output(&self, _fence: &Fence, _token: &str, _chunk: OutputChunk) -> Result<u64, ApiError> {
        Err(missing())
    }

    async fn blob(&self, _digest: Digest, _offset: u64, _token: &str) -> Result<ByteStream, ApiError> {
        Err(missing())
    }
}
