//! Trees made of what is in a job directory.

use std::path::PathBuf;

use executr_tree::{MadeTree, SnapshotOptions, snapshot_telling};

use super::blocking;
use crate::contract::{ExecutorError, Offer};

/// Makes a tree of what stands at `path`, under its own name when it is `named`; `None` when nothing does. `within` is a
/// directory on the way that others fill: from there on no link is followed.
pub(crate) async fn take(
    path: PathBuf,
    named: bool,
    within: Option<PathBuf>,
    offer: Offer,
) -> Result<Option<MadeTree>, ExecutorError> {
    let options = SnapshotOptions { named, within, ..SnapshotOptions::everything() };
    let taking = blocking(move || {
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        // Nobody listens any more after an error.
        let snapshot = snapshot_telling(&path, &options, &|blob| drop(offer.send(blob.into())))?;
        Ok(Some(snapshot.into()))
    });
    taking.await?
}
