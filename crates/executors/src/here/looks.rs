//! What changed in a job directory: what it looked like when it was noted, and one walk over it. What was put there as a tree
//! needn't be read for that.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executr_spec::Digest;
use executr_spec::glob::is_chosen;
use executr_spec::workflow::ModifiedFiles;
use executr_tree::{Baseline, Change, Changes, Packed, Placed, pack_modified};

use super::{Writing, blocking};
use crate::contract::{ExecutorError, FileToPut, TreeAtHand};

/// What the directory looked like.
#[derive(Default)]
pub(crate) struct Looks {
    /// As a tree had just been put there, which nobody has looked at since.
    placed: Option<(Arc<dyn TreeAtHand>, Placed)>,
    /// The last time anybody looked.
    last: Option<Baseline>,
    /// Before the steps.
    first: Option<Baseline>,
    /// Files that are put there anew for each step.
    put: BTreeMap<PathBuf, (Digest, u32)>,
}

impl Looks {
    /// A tree was put there.
    pub(crate) fn placed(&mut self, tree: Arc<dyn TreeAtHand>, placed: Placed) {
        if self.last.is_none() {
            self.placed = Some((tree, placed));
        }
    }

    /// These files are about to be put there.
    pub(crate) fn put(&mut self, files: &[FileToPut]) {
        let known = files.iter().map(|file| (file.path.clone(), (Digest::of(&file.content), file.mode)));
        self.put.extend(known);
    }

    /// Looks at a directory. What the last look saw is not read again.
    pub(crate) async fn note(&mut self, directory: &Path) -> Result<(), ExecutorError> {
        let (last, placed) = (self.last.take(), self.placed.take());
        let directory = directory.to_owned();
        let looked = blocking(move || {
            let of_tree = || placed.map(|(tree, placed)| Baseline::of_placed(tree.manifest(), &placed));
            last.or_else(of_tree).unwrap_or_default().advance(&directory)
        });
        self.last = Some(looked.await??.baseline);
        Ok(())
    }

    /// What is different from what was noted; nothing if nothing was. That is what is noted then.
    pub(crate) async fn changes(&mut self, directory: &Path) -> Result<Changes, ExecutorError> {
        let Some(before) = self.last.take() else { return Ok(Changes::default()) };
        let directory = directory.to_owned();
        let looked = blocking(move || before.advance(&directory)).await??;
        self.last = Some(looked.baseline);
        Ok(looked.changes)
    }

    /// Looks at a directory before the steps; at one that was there before, without reading its files.
    pub(crate) async fn begin(&mut self, directory: &Path, is_own: bool) -> Result<(), ExecutorError> {
        if is_own {
            self.note(directory).await?;
            self.first.clone_from(&self.last);
        } else {
            let directory = directory.to_owned();
            self.first = Some(blocking(move || Baseline::record(&directory)).await??);
        }
        Ok(())
    }

    /// Packs what is different from what was there before the steps.
    pub(crate) async fn take(
        &mut self,
        directory: &Path,
        wanted: &ModifiedFiles,
        into: File,
    ) -> Result<Packed, ExecutorError> {
        let (before, put) = (self.first.take().unwrap_or_default(), std::mem::take(&mut self.put));
        let (directory, wanted) = (directory.to_owned(), wanted.clone());
        let packing = blocking(move || {
            let changes = before.compare(&directory)?;
            let is_wanted = |change: &&Change| {
                is_chosen(&wanted.include, &wanted.exclude, change.path.as_os_str().as_bytes())
                    && !put.get(&change.path).is_some_and(|known| is_as_put(&directory.join(&change.path), *known))
            };
            let wanted_changes = changes.all().iter().filter(is_wanted);
            Ok(pack_modified(&directory, wanted_changes, wanted.archive, into)?)
        });
        packing.await?
    }
}

/// Whether a file is still what was put there.
fn is_as_put(path: &Path, (digest, mode): (Digest, u32)) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::symlink_metadata(path) else { return false };
    found.is_file()
        && found.mode() & 0o777 == mode
        && std::fs::read(path).is_ok_and(|content| Digest::of(&content) == digest)
}

/// Puts a tree into a directory, and remembers what it looked like then.
pub(crate) async fn put_watched(
    writing: &mut Writing,
    looks: &mut Looks,
    tree: Arc<dyn TreeAtHand>,
    target: PathBuf,
) -> Result<(), ExecutorError> {
    let placed = writing.put(Arc::clone(&tree), target).await?;
    looks.placed(tree, placed);
    Ok(())
}
