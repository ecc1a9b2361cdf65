//! A tree as a tar archive, compressed with zstd: what other programs read.

use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executr_spec::Digest;
use thiserror::Error;

use crate::manifest::{FileEntry, Kind, MAX_ENTRIES, Manifest, Place};
use crate::parallel;
use crate::source::BlobSource;

/// How hard zstd tries; its own default.
const LEVEL: i32 = 3;

/// Why an archive isn't written or read.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The system refused, or the other end did.
    #[error("the archive can't be written or read: {0}")]
    Io(#[from] io::Error),
    /// Not all blobs are there.
    #[error("blob {0} is not there; fetch it first")]
    Missing(Digest),
    /// A blob is shorter than the tree says.
    #[error("blob {0} is damaged; remove it and fetch it again")]
    Damaged(Digest),
    /// The archive would write outside of where it is unpacked, or where something is.
    #[error("the archive's `{}` leads outside of its directory, or stands there twice; it was not unpacked any further", .0.display())]
    Outside(PathBuf),
    /// The archive has too many entries.
    #[error("the archive has more than {MAX_ENTRIES} entries; unpack it in parts")]
    TooMany,
}

/// Writes the tree as a `.tar.zst`. A tree that is one file or link has `name` there. Times are 1970: a tree has none, and
/// equal trees make equal archives.
///
/// # Errors
/// [`ArchiveError`].
pub fn export(manifest: &Manifest, blobs: &dyn BlobSource, name: &Path, to: impl Write) -> Result<(), ArchiveError> {
    let mut compressed = zstd::Encoder::new(to, LEVEL)?;
    // With one it would be done beside the reading, for nothing.
    let threads = parallel::threads();
    if threads > 1 {
        compressed.multithread(u32::try_from(threads).unwrap_or(1))?;
    }
    let mut archive = tar::Builder::new(BufWriter::with_capacity(256 << 10, compressed));
    let mut pack: Option<(u32, Vec<u8>)> = None;
    for entry in manifest.entries() {
        let path = if entry.path.as_os_str().is_empty() { name } else { &entry.path };
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_size(0);
        match &entry.kind {
            Kind::Directory { mode } => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                archive.append_data(&mut header, path, io::empty())?;
            }
            Kind::Symlink { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                archive.append_link(&mut header, path, target)?;
            }
            Kind::File(file) => {
                header.set_mode(file.mode);
                header.set_size(file.size);
                append_file(&mut archive, &mut header, path, file, manifest, blobs, &mut pack)?;
            }
        }
    }
    let compressed = archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    compressed.finish()?.flush()?;
    Ok(())
}

fn append_file(
    archive: &mut tar::Builder<impl Write>,
    header: &mut tar::Header,
    path: &Path,
    file: &FileEntry,
    manifest: &Manifest,
    blobs: &dyn BlobSource,
    pack: &mut Option<(u32, Vec<u8>)>,
) -> Result<(), ArchiveError> {
    let open = |digest| blobs.open_blob(digest)?.ok_or(ArchiveError::Missing(digest));
    match file.place {
        Place::Empty => archive.append_data(header, path, io::empty())?,
        Place::Own => {
            let mut counted = Counted { inner: open(file.digest)?.take(file.size), left: file.size };
            archive.append_data(header, path, &mut counted)?;
            if counted.left > 0 {
                return Err(ArchiveError::Damaged(file.digest));
            }
        }
        Place::Packed { pack: number, offset } => {
            let digest = manifest.packs()[number as usize];
            // Files of a pack stand together.
            if pack.as_ref().is_none_or(|(held, _)| *held != number) {
                let mut bytes = Vec::new();
                open(digest)?.take(u64::from(crate::manifest::packing::MOST)).read_to_end(&mut bytes)?;
                *pack = Some((number, bytes));
            }
            let bytes = pack.as_ref().and_then(|(_, bytes)| bytes.get(offset as usize..)?.get(..file.size as usize));
            archive.append_data(header, path, bytes.ok_or(ArchiveError::Damaged(digest))?)?;
        }
    }
    Ok(())
}

/// Knows how much is still to come.
struct Counted<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Unpacks a `.tar.zst` that anybody may have made into `target`, a directory that is made now and nobody else writes to;
/// [`snapshot`](crate::snapshot) makes a tree of it. What is neither file, directory nor link is passed over, a hard link is
/// an error.
///
/// # Errors
/// [`ArchiveError`]; what was unpacked before stays.
pub fn import(from: impl Read, target: &Path) -> Result<(), ArchiveError> {
    std::fs::create_dir(target)?;
    let mut archive = tar::Archive::new(zstd::Decoder::new(from)?);
    let mut directories = Vec::new();
    for (number, entry) in archive.entries()?.enumerate() {
        if number == MAX_ENTRIES {
            return Err(ArchiveError::TooMany);
        }
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let outside = || ArchiveError::Outside(path.clone());
        let is_inside = path
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
        if !is_inside || path.as_os_str().as_bytes().contains(&0) {
            return Err(outside());
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            // Filled first, then given its mode: it may be one that can't be written to.
            directories.push((path.clone(), entry.header().mode()? & crate::MODE_BITS));
        } else if kind.is_hard_link() {
            return Err(outside());
        } else if !(kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() || kind.is_symlink()) {
            continue;
        } else if std::fs::symlink_metadata(target.join(&path)).is_ok() {
            return Err(outside());
        }
        entry.set_preserve_mtime(false);
        entry.set_preserve_permissions(false);
        let mode = entry.header().mode()? & crate::MODE_BITS;
        // Refuses to go through links.
        if !entry.unpack_in(target)? {
            return Err(outside());
        }
        if kind.is_dir() {
            set_mode(&target.join(&path), 0o700)?;
        } else if !kind.is_symlink() {
            set_mode(&target.join(&path), mode)?;
        }
    }
    for (path, mode) in directories.into_iter().rev() {
        set_mode(&target.join(path), mode)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
