//! Blobs: bytes that jobs name by their digest.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use executr_api::{ApiError, ByteStream, ErrorCode, Fence, MAX_ASKED_BLOBS};
use executr_spec::{Digest, Hasher};
use executr_store::{BLOB_CHUNK, Store};
use futures_util::future::ready;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use crate::core::Core;
use crate::refusal;

/// So many blobs are asked about at a time; a store makes one transaction of what is asked meanwhile.
const ASKED_TOGETHER: usize = 256;

/// An upload that is forgotten unless it is finished.
struct Upload {
    id: Uuid,
    store: Arc<dyn Store>,
    /// How many bytes there are, all verified.
    size: u64,
    finished: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Without a runtime (the process ends) the sweep for old uploads removes it later.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (store, id) = (Arc::clone(&self.store), self.id);
            runtime.spawn(async move {
                if let Err(error) = store.drop_blob_upload(id).await {
                    tracing::debug!(%error, upload = %id, "a broken upload is left to the sweep");
                }
            });
        }
    }
}

impl Core {
    pub(crate) async fn blob_size(&self, digest: Digest) -> Result<Option<u64>, ApiError> {
        self.store.touch_blob(digest).await.map_err(refusal::store)
    }

    /// Those of the blobs that are not there, in order.
    pub(crate) async fn missing_blobs(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        if digests.len() > MAX_ASKED_BLOBS {
            let text = format!("at most {MAX_ASKED_BLOBS} blobs can be asked about at once; ask several times");
            return Err(refusal::bad(text).with("field", "digests"));
        }
        stream::iter(digests)
            .map(|digest| async move { Ok((digest, self.blob_size(digest).await?)) })
            .buffered(ASKED_TOGETHER)
            .try_filter_map(|(digest, size)| ready(Ok(size.is_none().then_some(digest))))
            .try_collect()
            .await
    }

    /// Stores a blob.
    pub(crate) async fn put_blob(&self, digest: Digest, bytes: ByteStream) -> Result<(), ApiError> {
        match self.receive(digest, bytes).await? {
            Some(upload) => self.finish(upload, digest).await,
            None => Ok(()),
        }
    }

    /// Stores a blob that an attempt made, if it still has its lease when all of it is here.
    pub(crate) async fn put_attempt_blob(
        &self,
        fence: &Fence,
        digest: Digest,
        bytes: ByteStream,
    ) -> Result<(), ApiError> {
        self.must_hold(fence).await?;
        let Some(upload) = self.receive(digest, bytes).await? else { return Ok(()) };
        self.must_hold(fence).await?;
        self.finish(upload, digest).await
    }

    /// Refuses unless the lease is live.
    pub(crate) async fn must_hold(&self, fence: &Fence) -> Result<(), ApiError> {
        let lease = self.store.lease_of(fence.job).await.map_err(refusal::store)?;
        if lease.is_some_and(|lease| lease.fence == *fence) {
            return Ok(());
        }
        let text = format!("the lease on {fence} is no longer held; end the attempt and drop what it made");
        Err(ApiError::new(ErrorCode::LeaseLost, text))
    }

    async fn finish(&self, mut upload: Upload, digest: Digest) -> Result<(), ApiError> {
        self.store.finish_blob(upload.id, digest, upload.size).await.map_err(refusal::store)?;
        upload.finished = true;
        Ok(())
    }

    /// Takes a blob's bytes and verifies them, holding no more of them than one chunk. `None`: the blob is there already.
    async fn receive(&self, digest: Digest, mut bytes: ByteStream) -> Result<Option<Upload>, ApiError> {
        if self.blob_size(digest).await?.is_some() {
            return Ok(None);
        }
        let most = self.options.max_blob_bytes;
        let mut upload = Upload { id: Uuid::new_v4(), store: Arc::clone(&self.store), size: 0, finished: false };
        let mut hasher = Hasher::default();
        let (mut size, mut stored) = (0_u64, 0_u64);
        let mut buffer = BytesMut::new();
        while let Some(part) = bytes.next().await {
            let part = part?;
            size += part.len() as u64;
            if size > most {
                let text = format!("the blob is larger than {most} bytes, the most this server takes");
                return Err(ApiError::new(ErrorCode::TooLarge, text).with("limit", most));
            }
            hasher.update(&part);
            buffer.extend_from_slice(&part);
            while buffer.len() >= BLOB_CHUNK {
                let chunk = buffer.split_to(BLOB_CHUNK).freeze();
                stored = self.append(&upload, stored, chunk).await?;
            }
        }
        if !buffer.is_empty() || stored == 0 {
            self.append(&upload, stored, buffer.freeze()).await?;
        }
        let found = hasher.finish();
        if found != digest {
            let text = format!("the bytes hash to {found}, not to {digest}; the upload was damaged or misnamed");
            return Err(refusal::bad(text).with("sha256", found));
        }
        upload.size = size;
        Ok(Some(upload))
    }

    async fn append(&self, upload: &Upload, offset: u64, chunk: Bytes) -> Result<u64, ApiError> {
        let end = offset + chunk.len() as u64;
        self.store.append_blob(upload.id, offset, chunk).await.map_err(refusal::store)?;
        Ok(end)
    }

    /// Reads a blob from `offset` on, a chunk at a time as it is asked for.
    pub(crate) async fn blob(&self, digest: Digest, offset: u64) -> Result<ByteStream, ApiError> {
        let first = self.store.read_blob(digest, offset).await.map_err(refusal::store)?;
        let Some(first) = first else {
            return Err(ApiError::new(ErrorCode::NotFound, format!("there is no blob {digest}")).with("blob", digest));
        };
        let next = offset + first.len() as u64;
        let store = Arc::clone(&self.store);
        let rest = stream::try_unfold((store, next), move |(store, offset)| async move {
            let chunk = store.read_blob(digest, offset).await.map_err(refusal::store)?.unwrap_or_default();
            let next = offset + chunk.len() as u64;
            Ok((!chunk.is_empty()).then_some((chunk, (store, next))))
        });
        // A first chunk that is empty is the end of the blob.
        let done = first.is_empty();
        let first = stream::iter((!done).then_some(Ok(first)));
        Ok(if done { Box::pin(first) } else { Box::pin(first.chain(rest)) })
    }
}
