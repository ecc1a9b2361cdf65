//! Where a cluster's files lie.

use std::path::PathBuf;

use super::Durability;

/// A shared-memory mount must have this much room to hold clusters, in bytes.
const MEMORY_NEEDED: u64 = 2 << 30;

/// The directory below which a cluster of this durability belongs. Its path is short, as a Unix socket's has to be,
/// and every account may pass through it.
pub(super) fn parent(durability: Durability) -> PathBuf {
    match durability {
        // A database is 300 files: memory creates them ten times faster than some disks do.
        Durability::Fast if memory_has_room() => PathBuf::from(MEMORY),
        Durability::Fast | Durability::Synced => std::env::temp_dir(),
    }
}

const MEMORY: &str = "/dev/shm";

fn memory_has_room() -> bool {
    // Containers often have 64 MiB here.
    rustix::fs::statvfs(MEMORY).is_ok_and(|mount| mount.f_bavail * mount.f_frsize >= MEMORY_NEEDED)
}
