//! Trees between here and a coordinator, near or far.
//!
//! [`push`] sends what a coordinator lacks, [`save`] does so while the tree is still being made, [`fetch`] brings what a
//! directory of blobs lacks. What goes over the wire are blobs; the coordinator knows nothing of trees. The manifest goes
//! last and comes first: where it is, the rest is.

mod fetch;
mod push;
mod save;

use std::sync::Arc;

use async_trait::async_trait;
use executr_api::{ApiError, ByteStream, Client, ErrorCode, Fence, WorkerApi};
use executr_spec::Digest;
use thiserror::Error;

use crate::blob_dir::BlobDirError;
use crate::manifest::ManifestError;
use crate::snapshot::SnapshotError;

pub use fetch::{Fetched, fetch};
pub use push::push;
pub use save::{Saved, save, save_offered};

/// So many blobs are on their way at a time: enough that one's waiting for a disk or an answer is filled by others.
const TOGETHER: usize = 8;

/// A coordinator's blobs, for whoever may read or bring them.
#[async_trait]
pub trait RemoteBlobs: Send + Sync {
    /// Those of these blobs that it lacks, in order. At most [`executr_api::MAX_ASKED_BLOBS`].
    async fn missing(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError>;

    /// Brings a blob.
    async fn put(&self, digest: Digest, bytes: ByteStream) -> Result<(), ApiError>;

    /// Reads a blob from `offset` on.
    async fn read(&self, digest: Digest, offset: u64) -> Result<ByteStream, ApiError>;
}

/// A coordinator's blobs as a user has them.
pub struct UserBlobs(pub Arc<dyn Client>);

#[async_trait]
impl RemoteBlobs for UserBlobs {
    async fn missing(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        self.0.missing_blobs(digests).await
    }

    async fn put(&self, digest: Digest, bytes: ByteStream) -> Result<(), ApiError> {
        self.0.put_blob(digest, bytes).await
    }

    async fn read(&self, digest: Digest, offset: u64) -> Result<ByteStream, ApiError> {
        self.0.read_blob(digest, offset).await
    }
}

/// A coordinator's blobs as an attempt has them, while it has its lease.
pub struct AttemptBlobs {
    /// The coordinator.
    pub api: Arc<dyn WorkerApi>,
    /// The lease.
    pub fence: Fence,
    /// The job's own token.
    pub token: String,
}

#[async_trait]
impl RemoteBlobs for AttemptBlobs {
    async fn missing(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        self.api.missing_blobs(&self.fence, &self.token, digests).await
    }

    async fn put(&self, digest: Digest, bytes: ByteStream) -> Result<(), ApiError> {
        self.api.put_blob(&self.fence, &self.token, digest, bytes).await
    }

    async fn read(&self, digest: Digest, offset: u64) -> Result<ByteStream, ApiError> {
        self.api.blob(digest, offset, &self.token).await
    }
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blobs that are over.
    pub blobs: u64,
    /// Blobs that are to go over, as far as is known.
    pub of_blobs: u64,
    /// Bytes that are over.
    pub bytes: u64,
}

/// Told of every blob that is over.
pub type Watch<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Why a tree isn't where it should be.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The coordinator, or the way to it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The tree couldn't be made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What came is no tree.
    #[error("tree {digest} can't be used: {source}")]
    Manifest {
        /// What was fetched.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The directory of blobs doesn't do its part.
    #[error(transparent)]
    Blobs(#[from] BlobDirError),
    /// The source of the tree lacks a blob of it.
    #[error("blob {0} of the tree is not where the tree is; make the tree again")]
    Lost(Digest),
}

/// Runs what waits for files on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::new(ErrorCode::Internal, format!("reading or writing a blob broke off: {error}")))
}
