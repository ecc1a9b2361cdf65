//! Which files of a tree go over, and sending them.
//!
//! Files go in the order of the manifest. Of large files with the same bytes only the first does: the other side copies it.
//! Small ones lie together in packs, and go again rather than being looked for.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::Path;

use executr_spec::Digest;

use super::StreamError;
use crate::manifest::{Entry, FileEntry, Kind, MAX_MANIFEST, Manifest, ManifestError, Place};
use crate::source::BlobSource;

/// Which files of a manifest are wanted, by their number among all that aren't empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    #[default]
    All,
    /// Those whose bit is set; the lowest bit of the first byte is the first file's. What lies behind the end isn't wanted.
    Some(Vec<u8>),
}

impl Wanted {
    /// Those files of which `lacks` is true.
    #[must_use]
    pub fn of(manifest: &Manifest, mut lacks: impl FnMut(&Path, &FileEntry) -> bool) -> Self {
        let mut bits = Vec::new();
        for (number, (path, file)) in manifest.files().filter(|(_, file)| file.place != Place::Empty).enumerate() {
            if number % 8 == 0 {
                bits.push(0);
            }
            if lacks(path, file)
                && let Some(last) = bits.last_mut()
            {
                *last |= 1 << (number % 8);
            }
        }
        Self::Some(bits)
    }

    fn has(&self, number: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(bits) => bits.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1),
        }
    }

    /// Nothing behind the last file may be wanted.
    fn fits(&self, files: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(bits) => {
                let first = files / 8;
                bits.iter()
                    .skip(first)
                    .enumerate()
                    .all(|(index, byte)| if index == 0 { u32::from(*byte) >> (files % 8) == 0 } else { *byte == 0 })
            }
        }
    }
}

/// How a file's bytes get to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Not at all: it isn't wanted.
    Unwanted,
    /// There are none.
    Empty,
    /// In the stream.
    Sent,
    /// As those of another one with the same digest, before it.
    Again,
}

/// How each file gets to the other side; both sides come to the same.
pub(super) struct Ways<'a> {
    wanted: &'a Wanted,
    number: usize,
    sent: HashSet<Digest>,
}

impl<'a> Ways<'a> {
    /// # Errors
    /// [`StreamError::Foreign`] when more is wanted than there is.
    pub(super) fn new(manifest: &Manifest, wanted: &'a Wanted) -> Result<Self, StreamError> {
        let files = manifest.files().filter(|(_, file)| file.place != Place::Empty).count();
        if !wanted.fits(files) {
            return Err(StreamError::Foreign);
        }
        Ok(Self { wanted, number: 0, sent: HashSet::new() })
    }

    /// To be asked about every file, in order.
    pub(super) fn of(&mut self, file: &FileEntry) -> Way {
        if file.place == Place::Empty {
            return Way::Empty;
        }
        let number = self.number;
        self.number += 1;
        match file.place {
            _ if !self.wanted.has(number) => Way::Unwanted,
            Place::Own if self.sent.contains(&file.digest) => Way::Again,
            // One that its owner can't read is no use to others.
            Place::Own if file.mode & 0o400 != 0 => {
                self.sent.insert(file.digest);
                Way::Sent
            }
            _ => Way::Sent,
        }
    }
}

/// Sends a manifest: its length, eight bytes with the lowest first, and its bytes, but for the digests of its packs, of which
/// nobody needs to know who gets files one by one.
///
/// # Errors
/// [`StreamError::Cut`].
pub fn send_manifest(manifest: &Manifest, to: &mut impl Write) -> Result<(), StreamError> {
    let encoded = manifest.encode_outline();
    let mut send = || {
        to.write_all(&(encoded.len() as u64).to_le_bytes())?;
        to.write_all(&encoded)
    };
    send().map_err(StreamError::Cut)
}

/// Takes what [`send_manifest`] sends.
///
/// # Errors
/// [`StreamError::Cut`], or [`StreamError::Manifest`] when it is none.
pub fn receive_manifest(from: &mut impl Read) -> Result<Manifest, StreamError> {
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(StreamError::Cut)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_MANIFEST as u64 {
        return Err(ManifestError::TooLarge { most: MAX_MANIFEST as u64, what: "bytes of manifest" }.into());
    }
    let mut bytes = Vec::new();
    // Grows with what comes, not with what is said.
    from.take(length).read_to_end(&mut bytes).map_err(StreamError::Cut)?;
    if bytes.len() as u64 != length {
        return Err(StreamError::Cut(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Manifest::parse(&bytes)?)
}

/// Sends the bytes of the files that are wanted, out of blobs.
///
/// # Errors
/// [`StreamError::Cut`], [`StreamError::Missing`] or [`StreamError::Foreign`].
pub fn send_contents(
    manifest: &Manifest,
    wanted: &Wanted,
    blobs: &dyn BlobSource,
    to: &mut impl Write,
) -> Result<(), StreamError> {
    let mut ways = Ways::new(manifest, wanted)?;
    let mut pack: (Option<u32>, Vec<u8>) = (None, Vec::new());
    for Entry { kind, .. } in manifest.entries() {
        let Kind::File(file) = kind else { continue };
        if ways.of(file) != Way::Sent {
            continue;
        }
        match file.place {
            Place::Empty => {}
            Place::Own => {
                let missing = || StreamError::Missing(file.digest);
                let blob = blobs.open_blob(file.digest).map_err(|_| missing())?.ok_or_else(missing)?;
                copy(blob, file.size, to)?.then_some(()).ok_or_else(missing)?;
            }
            Place::Packed { pack: number, offset } => {
                let digest = manifest.packs().get(number as usize).copied().ok_or(StreamError::Foreign)?;
                let missing = || StreamError::Missing(digest);
                if pack.0 != Some(number) {
                    pack.0 = None;
                    pack.1.clear();
                    let blob = blobs.open_blob(digest).map_err(|_| missing())?.ok_or_else(missing)?;
                    let most = u64::from(crate::manifest::packing::MOST);
                    blob.take(most).read_to_end(&mut pack.1).map_err(|_| missing())?;
                    pack.0 = Some(number);
                }
                // A small file's size fits.
                let bytes = pack.1.get(offset as usize..).and_then(|rest| rest.get(..file.size as usize));
                to.write_all(bytes.ok_or_else(missing)?).map_err(StreamError::Cut)?;
            }
        }
    }
    Ok(())
}

/// Copies so many bytes; whether there were as many.
fn copy(mut from: impl Read, size: u64, to: &mut impl Write) -> Result<bool, StreamError> {
    let mut buffer = vec![0; super::CHUNK];
    let mut left = size;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match from.read(&mut buffer[..most]) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                to.write_all(&buffer[..read]).map_err(StreamError::Cut)?;
                left -= read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}
