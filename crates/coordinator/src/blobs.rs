//! Blobs: bytes that jobs name by their digest.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use executr_api::{ApiError, ByteStream, ErrorCode};
use executr_spec::{Digest, Hasher};
use executr_store::{BLOB_CHUNK, Store};
use futures_util::{StreamExt as _, stream};
use uuid::Uuid;

use crate::core::Core;
use crate::refusal;

/// An upload that is forgotten unless it is finished.
struct Upload {
    id: Uuid,
    store: Arc<dyn Store>,
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

    /// Stores a blob, holding no more of it than one chunk.
    pub(crate) async fn put_blob(&self, digest: Digest, mut bytes: ByteStream) -> Result<(), ApiError> {
        if self.blob_size(digest).await?.is_some() {
            return Ok(());
        }
        let most = self.options.max_blob_bytes;
        let mut upload = Upload { id: Uuid::new_v4(), store: Arc::clone(&self.store), finished: false };
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
        self.store.finish_blob(upload.id, digest, size).await.map_err(refusal::store)?;
        upload.finished = true;
        Ok(())
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
