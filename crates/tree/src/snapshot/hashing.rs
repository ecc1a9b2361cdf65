//! Reading what isn't known yet: large files and packs, each by one thread, all processors busy.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use executr_spec::{Digest, Hasher};

use super::SnapshotError;
use super::stat_cache::{Cursor, StatCache};
use super::walk::{Found, FoundKind, is_gone};
use crate::manifest::packing::Packer;
use crate::manifest::{Entry, FileEntry, Kind, MODE_BITS, Manifest, ManifestError, Place};
use crate::stamp::Stamp;
use crate::{beneath, parallel};

/// Read so much at a time: what stays in a processor's own cache between reading and hashing.
const CHUNK: usize = 256 << 10;

/// Something to be read.
enum Work {
    /// A large file, by its index.
    Own(usize),
    /// A pack's files, by their indices.
    Pack { number: usize, files: Vec<usize> },
}

/// What was read: the digests of files, by their indices, and of a pack.
struct Hashed {
    files: Vec<(usize, Digest)>,
    pack: Option<(usize, Digest, Digest)>,
}

/// A file isn't what it was when it was found.
pub(super) enum ReadError {
    Changed(usize),
    Failed(SnapshotError),
}

/// What was found out about all that was found, in its order.
pub(super) struct Outcome {
    pub(super) digests: Vec<Option<Digest>>,
    places: Vec<Place>,
    /// The packs, each after what stands for the files in it.
    pub(super) packs: Vec<(Digest, Digest)>,
    /// Whether anything had to be read.
    pub(super) read: bool,
}

impl Outcome {
    /// The tree.
    pub(super) fn manifest(self, found: Vec<Found>) -> Result<Manifest, ManifestError> {
        let all = found.into_iter().zip(self.digests).zip(self.places);
        let entries = all.map(|((found, digest), place)| entry(found, digest, place)).collect();
        Manifest::of_settled(entries, self.packs.into_iter().map(|(_, digest)| digest).collect())
    }
}

/// Told of every blob of the tree and the indices of the files in it, as soon as its digest is known, by whichever thread
/// knows it.
pub(super) type Tell<'a> = &'a (dyn Fn(Digest, &[usize]) + Sync);

/// Finds the digests of everything. Digests of files found on the way are put in `known`, whatever the outcome.
pub(super) fn hash(
    root: &OwnedFd,
    root_path: &Path,
    found: &[Found],
    cache: &StatCache,
    known: &Mutex<HashMap<usize, Digest>>,
    tell: Tell<'_>,
) -> Result<Outcome, ReadError> {
    let mut digests: Vec<Option<Digest>> = vec![None; found.len()];
    let mut cursor = Cursor::default();
    let mut packer = Packer::default();
    let mut places = vec![Place::Empty; found.len()];
    let mut packs: Vec<Vec<usize>> = Vec::new();
    let mut work = Vec::new();
    for (index, Found { path, kind }) in found.iter().enumerate() {
        let FoundKind::File(stamp) = kind else { continue };
        digests[index] = if stamp.size == 0 { Some(Digest::of(b"")) } else { cache.file(path, stamp, &mut cursor) };
        places[index] = packer.place(path, stamp.size);
        match places[index] {
            Place::Empty => {}
            Place::Own if digests[index].is_none() => work.push(Work::Own(index)),
            Place::Own => {}
            Place::Packed { pack, .. } => {
                if packs.len() == pack as usize {
                    packs.push(Vec::new());
                }
                packs[pack as usize].push(index);
            }
        }
    }
    // The largest first, so that no thread is left with it at the end.
    work.sort_by_key(|work| match work {
        Work::Own(index) => std::cmp::Reverse(size_of(&found[*index])),
        Work::Pack { .. } => std::cmp::Reverse(0),
    });
    let mut pack_digests: Vec<Option<(Digest, Digest)>> = vec![None; packs.len()];
    for (number, files) in packs.into_iter().enumerate() {
        pack_digests[number] = together(files.iter().map(|index| digests[*index]))
            .and_then(|together| Some((together, cache.pack(together)?)));
        match pack_digests[number] {
            Some((_, digest)) => tell(digest, &files),
            None => work.push(Work::Pack { number, files }),
        }
    }
    for (index, digest) in digests.iter().enumerate() {
        if let (Place::Own, Some(digest)) = (places[index], digest) {
            tell(*digest, &[index]);
        }
    }
    let reader = Reader { root, root_path, found, digests: &digests };
    let hashed = parallel::for_each(
        &work,
        || vec![0; CHUNK],
        |buffer, work| {
            let hashed = match work {
                Work::Own(index) => reader.own(*index, buffer, tell),
                Work::Pack { number, files } => reader.pack(*number, files, buffer, tell),
            };
            if let (Ok(hashed), Ok(mut known)) = (&hashed, known.lock()) {
                known.extend(hashed.files.iter().copied());
            }
            hashed
        },
    )?;
    let read = !work.is_empty();
    for Hashed { files, pack } in hashed {
        for (index, digest) in files {
            digests[index] = Some(digest);
        }
        if let Some((number, together, digest)) = pack {
            pack_digests[number] = Some((together, digest));
        }
    }
    let packs: Vec<(Digest, Digest)> = pack_digests.into_iter().flatten().collect();
    Ok(Outcome { digests, places, packs, read })
}

fn size_of(found: &Found) -> u64 {
    match &found.kind {
        FoundKind::File(stamp) => stamp.size,
        FoundKind::Directory { .. } | FoundKind::Symlink(_) => 0,
    }
}

fn entry(found: Found, digest: Option<Digest>, place: Place) -> Entry {
    let kind = match found.kind {
        FoundKind::Directory { mode } => Kind::Directory { mode },
        FoundKind::Symlink(target) => Kind::Symlink { target },
        FoundKind::File(stamp) => Kind::File(FileEntry {
            mode: stamp.mode & MODE_BITS,
            size: stamp.size,
            // All files were read, or the walk over them failed.
            digest: digest.unwrap_or(Digest([0; 32])),
            place,
        }),
    };
    Entry { path: found.path, kind }
}

/// What stands for a pack in the cache; `None` when a digest isn't known.
fn together(files: impl Iterator<Item = Option<Digest>>) -> Option<Digest> {
    let mut hasher = Hasher::default();
    for digest in files {
        hasher.update(&digest?.0);
    }
    Some(hasher.finish())
}

struct Reader<'a> {
    root: &'a OwnedFd,
    root_path: &'a Path,
    found: &'a [Found],
    digests: &'a [Option<Digest>],
}

impl Reader<'_> {
    fn own(&self, index: usize, buffer: &mut [u8], tell: Tell<'_>) -> Result<Hashed, ReadError> {
        let mut hasher = Hasher::default();
        self.read(index, buffer, |bytes| hasher.update(bytes))?;
        let digest = hasher.finish();
        tell(digest, &[index]);
        Ok(Hashed { files: vec![(index, digest)], pack: None })
    }

    fn pack(&self, number: usize, files: &[usize], buffer: &mut [u8], tell: Tell<'_>) -> Result<Hashed, ReadError> {
        let mut pack = Hasher::default();
        let mut hashed = Vec::new();
        for index in files {
            let mut file = Hasher::default();
            let wanted = self.digests[*index].is_none();
            self.read(*index, buffer, |bytes| {
                pack.update(bytes);
                if wanted {
                    file.update(bytes);
                }
            })?;
            if wanted {
                hashed.push((*index, file.finish()));
            }
        }
        let digest = pack.finish();
        tell(digest, files);
        let mut new = hashed.iter();
        let all = files.iter().map(|index| self.digests[*index].or_else(|| new.next().map(|(_, digest)| *digest)));
        let pack = together(all).map(|together| (number, together, digest));
        Ok(Hashed { files: hashed, pack })
    }

    /// Reads a file that must be, before and after, what it was when it was found.
    fn read(&self, index: usize, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<(), ReadError> {
        let found = &self.found[index];
        let FoundKind::File(stamp) = &found.kind else { return Ok(()) };
        let failed = |action| {
            let path = self.root_path.join(&found.path);
            move |source| ReadError::Failed(SnapshotError::Io { action, path, source })
        };
        let mut file = match beneath::open_file(self.root.as_fd(), &found.path) {
            Ok(file) => file,
            Err(error) if is_gone(&error) => return Err(ReadError::Changed(index)),
            Err(error) => return Err(failed("read")(error)),
        };
        let mut left = stamp.size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match file.read(&mut buffer[..most]) {
                Ok(0) => return Err(ReadError::Changed(index)),
                Ok(read) => {
                    take(&buffer[..read]);
                    left -= read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read")(error)),
            }
        }
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("look at")(errno.into()))?;
        if Stamp::of(&stat) == *stamp { Ok(()) } else { Err(ReadError::Changed(index)) }
    }
}
