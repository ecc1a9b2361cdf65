//! Trees, as far as the coordinator has to know them: which blobs they are made of.

use bytes::BytesMut;
use executr_api::{ApiError, ErrorCode, MAX_ASKED_BLOBS};
use executr_spec::Digest;
use executr_tree::{MAX_MANIFEST, Manifest, ManifestError};
use futures_util::TryStreamExt as _;

use crate::core::Core;
use crate::refusal;

/// A tree as far as the coordinator has to know it.
pub(super) struct Tree {
    /// The blobs that make it, its manifest's first.
    pub(super) blobs: Vec<Digest>,
    /// The bytes of its files, and how many there are.
    pub(super) size: u64,
    pub(super) files: u64,
}

impl Core {
    /// Reads a tree's manifest.
    ///
    /// # Errors
    /// `BadRequest` when it is missing, or is none.
    pub(super) async fn tree(&self, tree: Digest) -> Result<Tree, ApiError> {
        let bytes = self.manifest(tree).await?;
        let read = tokio::task::spawn_blocking(move || {
            let manifest = Manifest::parse(&bytes)?;
            let blobs = std::iter::once(tree).chain(manifest.blobs()).collect();
            Ok(Tree { blobs, size: manifest.size(), files: manifest.files().count() as u64 })
        });
        let read = read.await.map_err(|_| refusal::broken())?;
        read.map_err(|error: ManifestError| {
            refusal::bad(format!("the blob {tree} is no tree: {error}")).with("blob", tree)
        })
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
