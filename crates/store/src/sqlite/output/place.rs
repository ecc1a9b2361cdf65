//! Where segments lie, and that their names last.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executr_spec::JobId;

use crate::StoreError;
use crate::sqlite::error::from_file;

/// The directory of all segments: 256 directories with segments in them.
#[derive(Debug)]
pub(super) struct Places {
    directory: PathBuf,
    /// Whether what is to last is brought to the disk.
    synced: bool,
    /// Of each directory whether its own name, and all above, are known to be on the disk.
    named: [AtomicBool; 256],
}

impl Places {
    pub(super) fn new(directory: PathBuf, synced: bool) -> Self {
        Self { directory, synced, named: [const { AtomicBool::new(false) }; 256] }
    }
}

/// Where the segment of an attempt is, or would be: most attempts have none, so its name is only made when it is needed.
#[derive(Debug)]
pub(super) struct SegmentPlace {
    pub(super) places: Arc<Places>,
    pub(super) job: JobId,
    pub(super) attempt: u32,
}

impl SegmentPlace {
    /// The last byte of the id, which is random.
    fn byte(&self) -> u8 {
        self.job.0.as_bytes()[15]
    }

    /// `xx/<job>-<attempt>`.
    pub(super) fn path(&self) -> PathBuf {
        self.places.directory.join(format!("{:02x}/{}-{}", self.byte(), self.job, self.attempt))
    }

    /// Whether anything of it is to last.
    pub(super) fn is_synced(&self) -> bool {
        self.places.synced
    }

    /// Brings the name of the file to the disk. Its content alone would be lost without it.
    pub(super) fn sync_name(&self) -> Result<(), StoreError> {
        let path = self.path();
        let above: Vec<&Path> = path.ancestors().skip(1).take(3).collect();
        let named = &self.places.named[usize::from(self.byte())];
        // The directories above were made by the first segment in them, maybe of an earlier process.
        let fresh = if named.load(Ordering::Acquire) { 1 } else { above.len() };
        for directory in &above[..fresh] {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            match synced {
                // Somebody has deleted it with all its segments; what is missing reads as a gap.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                synced => synced.map_err(from_file(directory))?,
            }
        }
        named.store(true, Ordering::Release);
        Ok(())
    }
}
