//! Unpacked layers.
//!
//! A layer is unpacked under `incoming` and gets its name when it is whole. Whether it is also on the disk is another
//! matter: until somebody has waited for that, its facts name the boot it was unpacked in, and after another boot it is
//! taken for lost.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use executr_spec::Digest;
use executr_tree::FileLock;
use serde::{Deserialize, Serialize};

use super::removal::remove_tree;
use crate::error::ImageError;
use crate::layer::{LayerError, Limits, Ownership, Refusal, unpack};
use crate::reference::oci_digest;

/// The directory of unpacked layers.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    directory: PathBuf,
    incoming: PathBuf,
    ownership: Ownership,
    limits: Limits,
    /// What the system calls this boot.
    boot: String,
}

/// What is known of an unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerFacts {
    /// Bytes of its files.
    pub(super) bytes: u64,
    /// How many entries it has.
    pub(super) entries: u64,
    /// The boot it was unpacked in, as long as nobody knows whether it is on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

/// What a layer should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// The digest of its bytes as they travel: its name.
    pub(super) digest: Digest,
    /// How many of them there are.
    pub(super) size: u64,
    /// The digest of the archive within.
    pub(super) diff_id: Digest,
}

/// The right to unpack a layer.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: FileLock,
}

impl Layers {
    pub(super) fn new(
        directory: PathBuf,
        incoming: PathBuf,
        ownership: Ownership,
        limits: Limits,
    ) -> Result<Self, ImageError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(path).map_err(ImageError::store("read", path))?;
        Ok(Self { directory, incoming, ownership, limits, boot: boot.trim().to_owned() })
    }

    fn path(&self, layer: Digest) -> PathBuf {
        self.directory.join(layer.to_string())
    }

    /// The layer's directory, when it is here.
    pub(super) fn find(&self, layer: Digest) -> Option<PathBuf> {
        let path = self.path(layer);
        let facts = self.facts(&path).ok()?;
        facts.boot.is_none_or(|boot| boot == self.boot).then(|| path.join("tree"))
    }

    fn facts(&self, path: &Path) -> io::Result<LayerFacts> {
        Ok(serde_json::from_slice(&fs::read(path.join("facts"))?)?)
    }

    /// The right to unpack a layer; `None` while another has it.
    pub(super) fn turn(&self, layer: Digest) -> Result<Option<Turn>, ImageError> {
        let path = self.incoming.join(format!("{layer}.turn"));
        let lock = FileLock::try_acquire(&path).map_err(ImageError::store("lock", &path))?;
        Ok(lock.map(|lock| Turn { _lock: lock }))
    }

    /// Unpacks a layer and gives it its name, when it is what it should be. Nothing of it stays otherwise.
    pub(super) fn unpack(&self, _turn: &Turn, layer: Expected, bytes: impl Read) -> Result<(), ImageError> {
        let room = self.room()?;
        let tree = room.path.join("tree");
        fs::create_dir(&tree).map_err(ImageError::store("make the directory", &tree))?;
        let opened = File::open(&tree).map_err(ImageError::store("open", &tree))?;
        let unpacked = unpack(layer.digest, bytes, opened.as_fd(), self.ownership, self.limits)?;
        let refused = |why| LayerError { layer: oci_digest(layer.digest), entry: None, why };
        if unpacked.length != layer.size {
            return Err(refused(Refusal::Length { expected: layer.size, found: unpacked.length }).into());
        }
        for (expected, found) in [(layer.digest, unpacked.digest), (layer.diff_id, unpacked.diff_id)] {
            if expected != found {
                let expected = oci_digest(expected);
                return Err(refused(Refusal::Digest { expected, found: found.to_string() }).into());
            }
        }
        let facts = LayerFacts { bytes: unpacked.bytes, entries: unpacked.entries, boot: Some(self.boot.clone()) };
        write_facts(&room.path, &facts)?;
        let path = self.path(layer.digest);
        // Here only if it is of another boot.
        drop(self.remove(layer.digest)?);
        fs::rename(&room.path, &path).map_err(ImageError::store("keep", &path))
    }

    /// Waits until these layers are on the disk, and notes it.
    pub(super) fn settle(&self, layers: &[Digest]) -> Result<(), ImageError> {
        let read = |layer: &Digest| self.facts(&self.path(*layer)).ok().map(|facts| (*layer, facts));
        let unsettled: Vec<_> = layers.iter().filter_map(read).filter(|(_, facts)| facts.boot.is_some()).collect();
        if unsettled.is_empty() {
            return Ok(());
        }
        let sync = || {
            let directory = File::open(&self.directory)?;
            rustix::fs::syncfs(&directory).map_err(io::Error::from)
        };
        sync().map_err(ImageError::store("sync", &self.directory))?;
        for (layer, mut facts) in unsettled {
            facts.boot = None;
            write_facts(&self.path(layer), &facts)?;
        }
        Ok(())
    }

    /// All unpacked layers, with their facts and when they were used last.
    pub(super) fn all(&self) -> Result<Vec<(Digest, LayerFacts, SystemTime)>, ImageError> {
        let mut all = Vec::new();
        let listing = fs::read_dir(&self.directory).map_err(ImageError::store("list", &self.directory))?;
        for entry in listing {
            let entry = entry.map_err(ImageError::store("list", &self.directory))?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let (Ok(facts), Ok(metadata)) = (self.facts(&entry.path()), entry.metadata()) else { continue };
            all.push((digest, facts, metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
        }
        Ok(all)
    }

    /// Notes that layers are used now.
    pub(super) fn touch(&self, layers: &[Digest], now: SystemTime) {
        for layer in layers {
            // A note that isn't written makes it go the sooner, no more.
            let _ = File::open(self.path(*layer)).and_then(|directory| directory.set_modified(now));
        }
    }

    /// Takes a layer's name away, at once; all of it goes with the guard.
    pub(super) fn remove(&self, layer: Digest) -> Result<Room, ImageError> {
        let path = self.path(layer);
        let room = self.room()?;
        match fs::rename(&path, room.path.join("tree")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(room),
            removed => removed.map(|()| room).map_err(ImageError::store("remove", &path)),
        }
    }

    /// Removes what dead processes left.
    pub(super) fn forget_left(&self) -> Result<(), ImageError> {
        let listing = fs::read_dir(&self.incoming).map_err(ImageError::store("list", &self.incoming))?;
        for entry in listing.flatten() {
            let path = entry.path();
            if path.extension().is_some() {
                continue;
            }
            // Its lock was made before it.
            let lock_path = path.with_extension("lock");
            let Some(_lock) = FileLock::try_acquire(&lock_path).map_err(ImageError::store("lock", &lock_path))? else {
                continue;
            };
            remove_tree(&path).map_err(ImageError::store("remove", &path))?;
        }
        Ok(())
    }

    /// A directory of one's own, gone with its guard.
    pub(super) fn room(&self) -> Result<Room, ImageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = self.incoming.join(name);
            let lock_path = path.with_extension("lock");
            let lock = FileLock::try_acquire(&lock_path).map_err(ImageError::store("lock", &lock_path))?;
            // A process of the same number may have one in another container.
            let Some(lock) = lock else { continue };
            remove_tree(&path).map_err(ImageError::store("remove", &path))?;
            fs::create_dir(&path).map_err(ImageError::store("make the directory", &path))?;
            return Ok(Room { path, _lock: lock });
        }
    }
}

/// A directory that goes with this.
#[derive(Debug)]
pub(crate) struct Room {
    path: PathBuf,
    _lock: FileLock,
}

impl Room {
    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What stays is removed by the next who opens the store.
        let _ = remove_tree(&self.path);
    }
}

fn write_facts(layer: &Path, facts: &LayerFacts) -> Result<(), ImageError> {
    let path = layer.join("facts");
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Several may have waited for the disk, and write the same.
    let fresh = layer.join(format!("facts.{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let write = || {
        fs::write(&fresh, serde_json::to_vec(facts)?)?;
        fs::rename(&fresh, &path)
    };
    write().map_err(ImageError::store("write", &path))
}
