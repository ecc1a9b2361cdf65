//! A tree as a tar archive, compressed with zstd: what other programs read.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use executr_spec::Digest;
use thiserror::Error;

use crate::manifest::{FileEntry, Kind, Manifest, Place};
use crate::parallel;
use crate::source::BlobSource;

/// How hard zstd tries; its own default.
const LEVEL: i32 = 3;

/// Why an archive isn't written.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The system refused, or the other end did.
    #[error("the archive can't be written: {0}")]
    Io(#[from] io::Error),
    /// Not all blobs are there.
    #[error("blob {0} is not there; fetch it first")]
    Missing(Digest),
    /// A blob is shorter than the tree says.
    #[error("blob {0} is damaged; remove it and fetch it again")]
    Damaged(Digest),
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
