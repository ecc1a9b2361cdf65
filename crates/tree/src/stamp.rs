//! What a file looked like from outside: by this it is known to be unchanged without being read.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

/// So long before a file was looked at it must have been at rest, in nanoseconds: no clock of a filesystem that counts
/// nanoseconds is coarser.
pub(crate) const REST: i64 = 100_000_000;
/// The same for filesystems that count seconds.
const COARSE_REST: i64 = 2_100_000_000;
pub(crate) const SECOND: i64 = 1_000_000_000;

/// Times, length, inode and mode of a file. The kernel sets the time of change at every change and nobody can set it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was last changed in any way, in nanoseconds since 1970.
    pub ctime: i64,
    /// When its content was last written, in nanoseconds since 1970.
    pub mtime: i64,
    /// Its length in bytes.
    pub size: u64,
    /// Its inode.
    pub inode: u64,
    /// Its kind and permissions.
    pub mode: u32,
}

impl Stamp {
    /// What the system says about a file.
    #[must_use]
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the fields differ between processors")]
    pub fn of(stat: &Stat) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            ctime: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            mtime: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            size: stat.st_size as u64,
            inode: stat.st_ino as u64,
            mode: stat.st_mode as u32,
        }
    }

    /// Whether a file that was looked at when the clock said `looked` had been at rest for so long that it can't have been
    /// changed since and look the same: within one tick of the clock it may.
    pub(crate) fn had_rested(&self, looked: i64) -> bool {
        let coarse = self.ctime % SECOND == 0;
        self.ctime.max(self.mtime) <= looked.saturating_sub(if coarse { COARSE_REST } else { REST })
    }
}

/// What the clock says, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
