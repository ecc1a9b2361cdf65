//! The output of one running attempt.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use executr_api::output::{OutputChunk, RecordWriter, Records};

use super::place::SegmentPlace;
use super::segment::{Map, Segment};
use super::{INLINE, Sealed};
use crate::{AppendAnswer, OutputSlice, StoreError};

/// Much output is synced every so many bytes, so that little is left for the end.
const SYNC_STRIDE: u64 = 64 << 20;

/// An append log. It lives in a file from the first append on; what comes only with the result stays in memory
/// when it is little.
#[derive(Debug)]
pub(super) struct Log {
    place: SegmentPlace,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    place: Place,
    map: Map,
    sealed: bool,
    synced: u64,
    /// Whether the file's name is on the disk, as `synced` bytes of it are.
    named: bool,
    inlined: bool,
}

#[derive(Debug, Default)]
enum Place {
    /// Nothing was appended yet.
    #[default]
    Nowhere,
    /// An earlier process may have written a file.
    Unknown,
    Memory(BytesMut),
    File(Segment),
}

impl Log {
    pub(super) fn new(place: SegmentPlace) -> Self {
        Self { place, state: Mutex::default() }
    }

    pub(super) fn of_earlier_process(place: SegmentPlace) -> Self {
        Self { place, state: Mutex::new(State { place: Place::Unknown, ..State::default() }) }
    }

    /// The state, with the file opened and mended if an earlier process left one.
    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        // Each change of the state is the last thing its function does.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(state.place, Place::Unknown) {
            match Segment::open(&self.place.path())? {
                None => state.place = Place::Nowhere,
                Some(segment) => {
                    state.map = segment.recover()?;
                    state.place = Place::File(segment);
                }
            }
        }
        Ok(state)
    }

    /// Takes what is new of the chunk.
    pub(super) fn append(&self, chunk: &OutputChunk) -> Result<AppendAnswer, StoreError> {
        let mut state = self.state()?;
        if state.sealed {
            return Err(ending());
        }
        let end = state.map.end;
        if chunk.offset > end {
            return Ok(AppendAnswer::Gap { end });
        }
        let records = chunk.records.skip(end - chunk.offset);
        if !records.is_empty() {
            state.move_to_file(self)?;
            state.write(&records, self.place.is_synced())?;
        }
        Ok(AppendAnswer::Appended { end: state.map.end })
    }

    /// Takes the last chunk, and brings what will stay in a file to the disk.
    pub(super) fn complete(&self, last: Option<&OutputChunk>) -> Result<(), StoreError> {
        let mut state = self.state()?;
        if state.sealed {
            return Ok(());
        }
        if let Some(last) = last {
            let records = what_is_new(state.map.end, last);
            if !records.is_empty() {
                if state.map.size + records.as_bytes().len() as u64 > INLINE {
                    state.move_to_file(self)?;
                }
                state.write(&records, self.place.is_synced())?;
            }
        }
        if self.place.is_synced()
            && state.map.size > INLINE
            && (state.synced < state.map.size || !state.named)
            && let Place::File(segment) = &state.place
        {
            segment.sync()?;
            self.place.sync_name()?;
            state.synced = state.map.size;
            state.named = true;
        }
        Ok(())
    }

    /// Ends the log. It doesn't wait for the disk: of a lost attempt what a power loss takes away reads as a gap.
    pub(super) fn seal(&self) -> Result<Sealed, StoreError> {
        let mut state = self.state()?;
        let inline = match &state.place {
            Place::Memory(bytes) => Some(Bytes::copy_from_slice(bytes)),
            Place::File(segment) if state.map.size <= INLINE => Some(segment.bytes(&state.map)?),
            _ => None,
        };
        state.sealed = true;
        state.inlined = inline.is_some();
        Ok(Sealed { end: state.map.end, inline })
    }

    /// The end was not committed.
    pub(super) fn unseal(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sealed = false;
    }

    /// The end was committed: a file that was taken into the database isn't needed any more.
    pub(super) fn drop_inlined(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.inlined && matches!(state.place, Place::File(_)) {
            // At worst a small file stays that nobody reads.
            let path = self.place.path();
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a segment file could not be deleted");
            }
        }
    }

    pub(super) fn has_file(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(state.place, Place::File(_) | Place::Unknown)
    }

    pub(super) fn read(&self, offset: u64, max_bytes: usize) -> Result<OutputSlice, StoreError> {
        let state = self.state()?;
        let records = match &state.place {
            Place::File(segment) => segment.read(&state.map, offset, max_bytes)?,
            Place::Memory(bytes) => Records::trusted(Bytes::copy_from_slice(bytes)).skip(offset),
            Place::Nowhere | Place::Unknown => Records::default(),
        };
        Ok(OutputSlice { records, end: state.map.end, sealed: false })
    }
}

impl State {
    /// From now on it lies in a file.
    fn move_to_file(&mut self, log: &Log) -> Result<(), StoreError> {
        if matches!(self.place, Place::File(_)) {
            return Ok(());
        }
        let segment = Segment::create(&log.place.path())?;
        if let Place::Memory(bytes) = &self.place {
            segment.append(&mut Map::default(), &Records::trusted(Bytes::copy_from_slice(bytes)))?;
        }
        self.place = Place::File(segment);
        Ok(())
    }

    fn write(&mut self, records: &Records, synced: bool) -> Result<(), StoreError> {
        match &mut self.place {
            Place::File(segment) => {
                segment.append(&mut self.map, records)?;
                if synced && self.map.size - self.synced >= SYNC_STRIDE {
                    segment.sync()?;
                    self.synced = self.map.size;
                }
            }
            place => {
                if !matches!(place, Place::Memory(_)) {
                    *place = Place::Memory(BytesMut::new());
                }
                if let Place::Memory(bytes) = place {
                    bytes.extend_from_slice(records.as_bytes());
                }
                self.map.extend(records);
            }
        }
        Ok(())
    }
}

/// Its end is being committed: whether the lease is lost will be known in a moment.
pub(super) fn ending() -> StoreError {
    StoreError::Unavailable("the attempt is just being ended".to_owned())
}

/// What the last chunk adds after `end`; what is missing before it is a gap.
fn what_is_new(end: u64, last: &OutputChunk) -> Records {
    if last.offset <= end {
        return last.records.skip(end - last.offset);
    }
    if last.records.is_empty() {
        return Records::default();
    }
    let mut writer = RecordWriter::default();
    writer.gap(last.offset - end);
    for record in last.records.iter() {
        super::segment::push(&mut writer, &record);
    }
    writer.take()
}
