//! Trees, as far as the coordinator has to know them: which blobs they are made of.

use bytes::BytesMut;
use executr_api::{ApiError, ErrorCode, MAX_ASKED_BLOBS};
use executr_spec::Digest;
use executr_tree::{MAX_MANIFEST, Manifest};
use futures_util::TryStreamExt as _;

use crate::core::Core;
use crate::refusal;

impl Core {
    /// The blobs that make a tree, its manifest's first.
    ///
    /// # Errors
    /// `BadRequest` when its manifest is missing, or is none.
    pub(super) async fn tree_blobs(&self, tree: Digest) -> Result<Vec<Digest>, ApiError> {
        let bytes = self.manifest(tree).await?;
        let read = tokio::task::spawn_blocking(move || Manifest::parse(&bytes).map(|manifest| manifest.blobs())).await;
        let blobs = read
            .map_err(|_| refusal::broken())?
            .map_err(|error| refusal::bad(format!("the blob {tree} is no tree: {error}")).with("blob", tree))?;
        Ok(std::iter::once(tree).chain(blobs).collect())
    }

    async fn manifest(&self, tree: Digest) -> Result<bytes::Bytes, ApiError> {
        let missing = || {
            let text =
                format!("the server has no tree {tree}; upload its files and then it (PUT /api/v1/blobs/{tree})");
            refusal::bad(text).with("blob", tree)
        };
        let size = self.blob_size(tree).await?.ok_or_else(missing)?;
        if size > MAX_MANIFEST as u64 {
            return Err(refusal::bad(format!("the blob {tree} is no tree: it is larger than any")).with("blob", tree));
        }
        let parts = match self.blob(tree, 0).await {
            Err(error) if error.code == ErrorCode::NotFound => return Err(missing()),
            parts => parts?,
        };
        let bytes = parts.try_fold(BytesMut::new(), |mut bytes, part| async move {
            bytes.extend_from_slice(&part);
            Ok(bytes)
        });
        Ok(bytes.await?.freeze())
    }

    /// Those of the blobs that are not there, in order.
    pub(super) async fn lacking(&self, blobs: impl IntoIterator<Item = Digest>) -> Result<Vec<Digest>, ApiError> {
        let mut blobs = blobs.into_iter();
        let mut missing = Vec::new();
        loop {
            let asked: Vec<Digest> = blobs.by_ref().take(MAX_ASKED_BLOBS).collect();
            if asked.is_empty() {
                return Ok(missing);
            }
            missing.extend(self.missing_blobs(asked).await?);
        }
    }
}
