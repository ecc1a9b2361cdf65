//! Output of attempts, beside the database.
//!
//! While an attempt runs its output is a [`Log`](log::Log), which writes a segment file as soon as something is appended;
//! the writer is not involved. At the end little output moves into the attempt's row, within the transaction of its
//! result; more stays where it is, synced before that transaction. A segment is not made a blob: that would cost a digest
//! over all of it, and nobody asks for output by digest.

mod log;
mod place;
mod segment;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use executr_api::Fence;
use executr_api::output::{OutputChunk, RecordWriter, Records};
use executr_spec::JobId;

use self::log::Log;
use self::place::{Places, SegmentPlace};
use self::segment::{Map, Segment};
use super::error::from_file;
use crate::{AppendAnswer, OutputSlice, StoreError};

/// Output up to this many encoded bytes is kept in the attempt's row.
const INLINE: u64 = 8 << 10;
/// So many maps of ended segments are remembered.
const REMEMBERED_MAPS: usize = 32;

/// What is left of a log when its attempt ends.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    /// Where the output ends.
    pub(super) end: u64,
    /// All of it, when it is little.
    pub(super) inline: Option<Bytes>,
}

/// What there is of a live lease's output. Most attempts say nothing, or no more than comes with their result.
#[derive(Clone, Debug)]
enum Held {
    /// Nothing was appended yet.
    Nothing,
    /// Nothing was, and its end is being committed.
    Ending,
    Log(Arc<Log>),
}

/// The logs of all live leases, and the segments of ended attempts.
#[derive(Debug)]
pub(super) struct Logs {
    places: Arc<Places>,
    live: Mutex<HashMap<JobId, (Fence, Held)>>,
    maps: Mutex<HashMap<PathBuf, Map>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in these maps is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logs {
    /// Segments go below `directory`, which is made with the first. Whether what is acknowledged of them is on the disk is up
    /// to `synced`.
    pub(super) fn new(directory: PathBuf, synced: bool) -> Self {
        Self { places: Arc::new(Places::new(directory, synced)), live: Mutex::default(), maps: Mutex::default() }
    }

    fn place(&self, job: JobId, attempt: u32) -> SegmentPlace {
        SegmentPlace { places: self.places.clone(), job, attempt }
    }

    fn held(&self, fence: &Fence) -> Option<Held> {
        lock(&self.live).get(&fence.job).filter(|(held, _)| held == fence).map(|(_, held)| held.clone())
    }

    /// The log of a live attempt, made if nothing was appended yet. `None`: it isn't live.
    fn log(&self, fence: &Fence) -> Result<Option<Arc<Log>>, StoreError> {
        let mut live = lock(&self.live);
        let Some((_, held)) = live.get_mut(&fence.job).filter(|(held, _)| held == fence) else { return Ok(None) };
        match held {
            Held::Log(log) => Ok(Some(log.clone())),
            Held::Ending => Err(log::ending()),
            Held::Nothing => {
                let log = Arc::new(Log::new(self.place(fence.job, fence.attempt)));
                *held = Held::Log(log.clone());
                Ok(Some(log))
            }
        }
    }

    /// A new attempt begins.
    pub(super) fn begin(&self, fence: Fence) {
        lock(&self.live).insert(fence.job, (fence, Held::Nothing));
    }

    /// Exactly these leases are live, as the database says. Their logs may go on.
    pub(super) fn keep_only(&self, fences: impl Iterator<Item = Fence>) {
        let fences: HashSet<Fence> = fences.collect();
        let mut live = lock(&self.live);
        live.retain(|_, (fence, _)| fences.contains(fence));
        for fence in fences {
            let earlier = || Held::Log(Arc::new(Log::of_earlier_process(self.place(fence.job, fence.attempt))));
            match &mut live.entry(fence.job).or_insert_with(|| (fence, earlier())).1 {
                Held::Log(log) => log.unseal(),
                held => *held = Held::Nothing,
            }
        }
    }

    /// Ends a log; nothing is taken any more.
    pub(super) fn seal(&self, fence: &Fence) -> Result<Sealed, StoreError> {
        let log = match lock(&self.live).get_mut(&fence.job).filter(|(held, _)| held == fence) {
            Some((_, Held::Log(log))) => log.clone(),
            Some((_, held)) => {
                *held = Held::Ending;
                return Ok(Sealed::default());
            }
            None => return Ok(Sealed::default()),
        };
        log.seal()
    }

    /// The ends of these attempts are on disk.
    pub(super) fn forget(&self, fences: &[Fence]) {
        if fences.is_empty() {
            return;
        }
        let mut live = lock(&self.live);
        for fence in fences {
            if let Entry::Occupied(held) = live.entry(fence.job)
                && held.get().0 == *fence
                && let (_, Held::Log(log)) = held.remove()
            {
                log.drop_inlined();
            }
        }
    }

    /// Appends output of a running attempt.
    pub(super) fn append(&self, fence: &Fence, chunk: &OutputChunk) -> Result<AppendAnswer, StoreError> {
        self.log(fence)?.map_or(Ok(AppendAnswer::LeaseLost), |log| log.append(chunk))
    }

    /// Takes the last of the output, and brings all of it to the disk when it is much. Called before the writer is asked to take the
    /// result, so that the writer needn't wait for files.
    pub(super) fn complete(&self, fence: &Fence, last: Option<&OutputChunk>) -> Result<(), StoreError> {
        match self.held(fence) {
            Some(Held::Log(log)) => log.complete(last),
            Some(Held::Nothing) if last.is_some_and(|last| !last.records.is_empty()) => {
                self.log(fence)?.map_or(Ok(()), |log| log.complete(last))
            }
            _ => Ok(()),
        }
    }

    /// Whether the end of this attempt touches a file.
    pub(super) fn has_file(&self, fence: &Fence, last: Option<&OutputChunk>) -> bool {
        last.is_some_and(|chunk| chunk.records.as_bytes().len() as u64 > INLINE)
            || matches!(self.held(fence), Some(Held::Log(log)) if log.has_file())
    }

    /// Reads output of an attempt that is running. `None`: it isn't.
    pub(super) fn read_live(
        &self,
        job: JobId,
        attempt: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Option<OutputSlice>, StoreError> {
        let held =
            lock(&self.live).get(&job).filter(|(fence, _)| fence.attempt == attempt).map(|(_, held)| held.clone());
        match held {
            Some(Held::Log(log)) => log.read(offset, max_bytes).map(Some),
            Some(_) => Ok(Some(OutputSlice { records: Records::default(), end: 0, sealed: false })),
            None => Ok(None),
        }
    }

    /// Reads output of an ended attempt that ends at `end`. What is missing of the file is a gap.
    pub(super) fn read_sealed(
        &self,
        job: JobId,
        attempt: u32,
        end: u64,
        offset: u64,
        max_bytes: usize,
    ) -> Result<OutputSlice, StoreError> {
        let path = self.place(job, attempt).path();
        let records = match Segment::open(&path)? {
            None => Records::default(),
            Some(segment) => {
                let map = self.map(&path, &segment)?;
                segment.read(&map, offset, max_bytes)?
            }
        };
        if !records.is_empty() || offset >= end {
            return Ok(OutputSlice { records, end, sealed: true });
        }
        let mut writer = RecordWriter::default();
        writer.gap(end - offset);
        Ok(OutputSlice { records: writer.take(), end, sealed: true })
    }

    /// Where things lie in an ended segment; found out once and remembered.
    fn map(&self, path: &Path, segment: &Segment) -> Result<Map, StoreError> {
        if let Some(map) = lock(&self.maps).get(path) {
            return Ok(map.clone());
        }
        let map = segment.scan()?;
        let mut maps = lock(&self.maps);
        if maps.len() >= REMEMBERED_MAPS {
            maps.clear();
        }
        maps.insert(path.to_owned(), map.clone());
        Ok(map)
    }

    /// Deletes the segment of an ended attempt, if there is one.
    pub(super) fn delete(&self, job: JobId, attempt: u32) -> Result<(), StoreError> {
        let path = self.place(job, attempt).path();
        lock(&self.maps).remove(&path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(from_file(&path)(error)),
            _ => Ok(()),
        }
    }
}

/// Reads output that is kept in the attempt's row.
pub(super) fn read_inline(bytes: Vec<u8>, end: u64, offset: u64, max_bytes: usize) -> OutputSlice {
    let all = Records::trusted(bytes.into());
    let mut records = all.skip(offset);
    if records.as_bytes().len() > max_bytes {
        let mut writer = RecordWriter::default();
        for record in records.iter() {
            if !writer.is_empty() && writer.len() >= max_bytes {
                break;
            }
            segment::push(&mut writer, &record);
        }
        records = writer.take();
    }
    OutputSlice { records, end, sealed: true }
}
