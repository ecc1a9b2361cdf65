//! Making a golden tree another one.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::{Golden, GoldenError, failed};
use crate::beneath;
use crate::changes::{News, diff};
use crate::manifest::{Entry, Kind, Manifest};
use crate::materialise::{Existing, PlaceAt};
use crate::stamp::Stamp;
use crate::stream::{Wanted, place_wanted, receive_manifest};

impl Golden {
    /// Makes it another tree; the bytes of the files that are [`wanted`](Self::wanted) come out of `from`. While this goes on
    /// there is no tree that counts: after an error the next one who opens it begins anew.
    ///
    /// # Errors
    /// [`GoldenError`].
    pub fn update(
        self,
        stopped: &AtomicBool,
        manifest: Manifest,
        wanted: &Wanted,
        from: &mut impl Read,
    ) -> Result<Self, GoldenError> {
        let held = self.held(&manifest)?;
        let whole = self.root.join("whole");
        match fs::remove_file(&whole) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove", &whole)(error)),
            _ => {}
        }
        self.remove(&manifest)?;
        let tree = self.tree();
        let to = PlaceAt { target: &tree, below: Path::new(""), existing: Existing::Replace, owner: None };
        let is_lacking = |entry: &Entry| {
            let found = manifest.entries().binary_search_by(|one| one.path.components().cmp(entry.path.components()));
            found.is_ok_and(|index| held[index].is_none())
        };
        let placed = place_wanted(stopped, &manifest, wanted, &is_lacking, from, to)?;
        let mut stamps = placed.stamps;
        let opened = self.open_tree()?;
        for ((entry, stamp), held) in manifest.entries().iter().zip(&mut stamps).zip(held) {
            if let (None, Some(held)) = (&stamp, held) {
                *stamp =
                    Some(with_mode(&opened, entry, held).map_err(failed("set the mode of", &tree.join(&entry.path)))?);
            }
        }
        let updated = Self { manifest, stamps, ..self };
        let new = updated.root.join("whole.new");
        fs::write(&new, encode(&updated.manifest, &updated.stamps)).map_err(failed("write", &new))?;
        fs::rename(&new, &whole).map_err(failed("write", &whole))?;
        Ok(updated)
    }

    /// Removes what isn't in a tree any more, or in another form: what is in directories before them.
    fn remove(&self, manifest: &Manifest) -> Result<(), GoldenError> {
        let opened = self.open_tree()?;
        let changes = diff(&self.manifest, manifest);
        for change in changes.all().iter().rev() {
            let before = self.manifest.get(&change.path).map(|entry| &entry.kind);
            let after = manifest.get(&change.path).map(|entry| &entry.kind);
            let (is_directory, becomes_directory) =
                (matches!(before, Some(Kind::Directory { .. })), matches!(after, Some(Kind::Directory { .. })));
            // What stays what it is is replaced as a whole.
            if before.is_none() || (change.news != News::Deleted && is_directory == becomes_directory) {
                continue;
            }
            let failed = || failed("remove", &self.tree().join(&change.path));
            let (Some(above), Some(name)) = (change.path.parent(), change.path.file_name()) else { continue };
            let directory = match beneath::open_directory(opened.as_fd(), above) {
                Ok(directory) => directory,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed()(error)),
            };
            let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match rustix::fs::unlinkat(&directory, name, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed()(errno.into())),
            }
        }
        Ok(())
    }
}

/// Gives a file that is there its mode; what it looks like then.
fn with_mode(tree: &OwnedFd, entry: &Entry, held: Stamp) -> std::io::Result<Stamp> {
    let Kind::File(file) = &entry.kind else { return Ok(held) };
    if held.mode & crate::manifest::MODE_BITS == file.mode {
        return Ok(held);
    }
    let opened = beneath::open_directory(tree.as_fd(), entry.path.parent().unwrap_or(Path::new("")))?;
    let name = entry.path.file_name().unwrap_or_default();
    // It was looked at just now, and is no link.
    rustix::fs::chmodat(&opened, name, Mode::from_raw_mode(file.mode), AtFlags::empty())?;
    Ok(Stamp::of(&rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

/// The file that says that a tree is whole: its manifest, then 36 bytes for each entry of it.
fn encode(manifest: &Manifest, stamps: &[Option<Stamp>]) -> Vec<u8> {
    let outline = manifest.encode_outline();
    let mut bytes = (outline.len() as u64).to_le_bytes().to_vec();
    bytes.extend(outline);
    for stamp in stamps {
        let Stamp { ctime, mtime, size, inode, mode } =
            stamp.unwrap_or(Stamp { ctime: 0, mtime: 0, size: 0, inode: 0, mode: 0 });
        bytes.extend(ctime.to_le_bytes());
        bytes.extend(mtime.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(inode.to_le_bytes());
        bytes.extend(mode.to_le_bytes());
    }
    bytes
}

/// Reads it; `None` when it isn't one.
pub(super) fn parse(bytes: &[u8]) -> Option<(Manifest, Vec<Option<Stamp>>)> {
    let mut rest = bytes;
    let manifest = receive_manifest(&mut rest).ok()?;
    let mut stamps = Vec::with_capacity(manifest.entries().len());
    for entry in manifest.entries() {
        let stamp = Stamp {
            ctime: i64::from_le_bytes(take(&mut rest)?),
            mtime: i64::from_le_bytes(take(&mut rest)?),
            size: u64::from_le_bytes(take(&mut rest)?),
            inode: u64::from_le_bytes(take(&mut rest)?),
            mode: u32::from_le_bytes(take(&mut rest)?),
        };
        stamps.push((!matches!(entry.kind, Kind::Directory { .. })).then_some(stamp));
    }
    rest.is_empty().then_some((manifest, stamps))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}
