//! Making a tree and its blobs of what [`Taking`](super::Taking) sends.
//!
//! One thread takes the stream apart, hashes each file and writes large ones as they come; another hashes and writes packs
//! and waits for the disk. Of the stream no more is in memory than four packs of at most 4 MiB. What arrives gets its name
//! by what it hashes to, so there is nothing to believe.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use executr_spec::Digest;

use super::{CHUNK, StreamError, joined, receive_manifest};
use crate::arriving::Arrived;
use crate::blob_dir::BlobDir;
use crate::blob_lease::BlobLease;
use crate::manifest::{FileEntry, Manifest, Place};
use crate::source::MadeTree;

/// So many blobs, or bytes of them, get their names at a time.
const TOGETHER: usize = 64;
const MOST: u64 = 256 << 20;
/// Packs that wait to be written.
const AHEAD: usize = 2;
/// So many leases become one: each takes a descriptor.
const LEASES: usize = 16;

/// A tree whose blobs, and its manifest, are in a directory of blobs, and stay there while this lives.
#[derive(Debug)]
pub struct Gathered {
    /// The tree.
    pub tree: MadeTree,
    /// What keeps its blobs.
    pub leases: Vec<BlobLease>,
}

/// Takes a tree of at most `most` bytes out of a stream. `tell` is told of each blob as soon as it has its name, by another
/// thread.
///
/// # Errors
/// [`StreamError`]; blobs that were told of stay.
pub fn gather(
    from: &mut impl Read,
    blobs: &BlobDir,
    most: u64,
    tell: &(dyn Fn(Digest) + Sync),
) -> Result<Gathered, StreamError> {
    let outline = receive_manifest(from)?;
    let found = outline.size();
    if found > most {
        return Err(StreamError::TooLarge { most, found });
    }
    let (give, take) = sync_channel(AHEAD);
    let (files, kept) = thread::scope(|scope| {
        let keeping = scope.spawn(move || Keeper { blobs, tell, kept: Kept::default() }.run(&take));
        let divided = divide(&outline, from, blobs, |item| {
            // The keeper is gone: it says why.
            give.send(item).map_err(|_| StreamError::Cut(io::ErrorKind::BrokenPipe.into()))
        });
        // The keeper ends when nothing more can come.
        drop(give);
        let kept = joined(keeping)?;
        Ok::<_, StreamError>((divided?, kept))
    })?;
    let manifest = outline.with_digests(files, kept.packs);
    let encoded = manifest.encode();
    let mut arriving = blobs.arrive()?;
    arriving.append(&encoded)?;
    let arrived = arriving.finish()?;
    let digest = arrived.digest;
    let mut leases = kept.leases;
    leases.push(blobs.keep(vec![arrived])?);
    Ok(Gathered { tree: MadeTree { digest, manifest, encoded }, leases })
}

/// What goes from the thread that takes the stream apart to the one that keeps what is in it.
enum Item {
    Pack(Vec<u8>),
    Large(Arrived, u64),
}

/// Takes the stream apart; the digests of all files.
fn divide(
    outline: &Manifest,
    from: &mut impl Read,
    blobs: &BlobDir,
    give: impl Fn(Item) -> Result<(), StreamError>,
) -> Result<Vec<Digest>, StreamError> {
    let mut digests = Vec::new();
    let mut pack: (u32, Vec<u8>) = (0, Vec::new());
    let mut buffer = vec![0; CHUNK];
    for (_, file) in outline.files() {
        let digest = match file.place {
            Place::Empty => Digest::of(b""),
            Place::Own => {
                let arrived = large(file, from, blobs, &mut buffer)?;
                let digest = arrived.digest;
                give(Item::Large(arrived, file.size))?;
                digest
            }
            Place::Packed { pack: number, .. } => {
                if pack.0 != number {
                    give(Item::Pack(std::mem::take(&mut pack.1)))?;
                    pack.0 = number;
                }
                // A small file's size fits.
                let (start, size) = (pack.1.len(), file.size as usize);
                pack.1.resize(start + size, 0);
                from.read_exact(&mut pack.1[start..]).map_err(StreamError::Cut)?;
                Digest::of(&pack.1[start..])
            }
        };
        digests.push(digest);
    }
    if !pack.1.is_empty() {
        give(Item::Pack(pack.1))?;
    }
    Ok(digests)
}

fn large(file: &FileEntry, from: &mut impl Read, blobs: &BlobDir, buffer: &mut [u8]) -> Result<Arrived, StreamError> {
    let mut arriving = blobs.arrive()?;
    let mut left = file.size;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match from.read(&mut buffer[..most]) {
            Ok(0) => return Err(StreamError::Cut(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => {
                arriving.append(&buffer[..read])?;
                left -= read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StreamError::Cut(error)),
        }
    }
    Ok(arriving.finish()?)
}

/// Keeps what arrives.
struct Keeper<'a> {
    blobs: &'a BlobDir,
    tell: &'a (dyn Fn(Digest) + Sync),
    kept: Kept,
}

#[derive(Default)]
struct Kept {
    packs: Vec<Digest>,
    leases: Vec<BlobLease>,
    /// All that is leased.
    digests: Vec<Digest>,
    arrived: Vec<Arrived>,
    bytes: u64,
}

impl Keeper<'_> {
    fn run(mut self, items: &Receiver<Item>) -> Result<Kept, StreamError> {
        while let Ok(item) = items.recv() {
            match item {
                Item::Pack(bytes) => {
                    let mut arriving = self.blobs.arrive()?;
                    arriving.append(&bytes)?;
                    let arrived = arriving.finish()?;
                    self.kept.packs.push(arrived.digest);
                    self.add(arrived, bytes.len() as u64)?;
                }
                Item::Large(arrived, size) => self.add(arrived, size)?,
            }
        }
        self.keep()?;
        Ok(self.kept)
    }

    fn add(&mut self, arrived: Arrived, size: u64) -> Result<(), StreamError> {
        self.kept.arrived.push(arrived);
        self.kept.bytes += size;
        let enough = self.kept.arrived.len() >= TOGETHER || self.kept.bytes >= MOST;
        if enough { self.keep() } else { Ok(()) }
    }

    fn keep(&mut self) -> Result<(), StreamError> {
        let kept = &mut self.kept;
        let arrived = std::mem::take(&mut kept.arrived);
        let digests: Vec<Digest> = arrived.iter().map(|blob| blob.digest).collect();
        kept.bytes = 0;
        kept.leases.push(self.blobs.keep(arrived)?);
        kept.digests.extend(&digests);
        if kept.leases.len() > LEASES {
            let all = self.blobs.lease(&kept.digests)?;
            kept.leases = vec![all];
        }
        digests.into_iter().for_each(self.tell);
        Ok(())
    }
}
