//! What was written and not yet taken by the coordinator, within the cap.
//!
//! ```text
//! position  0 ─────────── ¾ cap ───────────────────────────── end
//!           head: sent as it comes   │ gap │ ring: the last ¼ cap
//! ```
//!
//! The head gathers in memory and is cut into segments; those that don't fit into memory lie in the spool. What comes
//! after the head goes round in the ring, in the spool as well, because only the end tells what was last.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use bytes::Bytes;
use executr_api::output::{OutputChunk, RecordWriter, Records, Stream};

use super::OutputOptions;
use super::spool::{Spool, read_at};

/// A segment is cut when it has so many encoded bytes.
pub(super) const SEGMENT: usize = 256 << 10;
/// Longer writes are taken in pieces of so many bytes.
pub(super) const PIECE: usize = 64 << 10;
/// So many encoded bytes wait in memory; what is more lies in the spool.
const MEMORY: usize = 1 << 20;

/// Where a segment's records are.
#[derive(Debug)]
enum Place {
    Memory(Records),
    Spool {
        slot: u64,
        length: usize,
    },
    /// In the file of a [`Tail`](super::Tail) that was loaded.
    File {
        position: u64,
        length: usize,
    },
}

/// Consecutive records.
#[derive(Debug)]
struct Segment {
    /// The position of its first record that counts.
    offset: u64,
    /// How many positions count.
    span: u64,
    /// How many positions before those are to be passed over.
    skip: u64,
    place: Place,
}

impl Segment {
    fn end(&self) -> u64 {
        self.offset + self.span
    }

    /// Lets the first `positions` count no more.
    fn shorten(&mut self, positions: u64) {
        self.offset += positions;
        self.span -= positions;
        self.skip += positions;
    }
}

/// An attempt's output that isn't taken yet.
#[derive(Debug)]
pub(super) struct OutputLog {
    head_limit: u64,
    ring_limit: u64,
    spool_dir: std::path::PathBuf,
    /// Positions written so far.
    total: u64,
    /// What gathers for the next segment of the head.
    gathering: RecordWriter,
    gathering_offset: u64,
    /// Segments of the head, in order.
    queue: VecDeque<Segment>,
    queue_memory: usize,
    ring: VecDeque<Segment>,
    ring_gathering: RecordWriter,
    ring_span: u64,
    /// What was taken last: the coordinator may turn out not to have kept it.
    taken: Option<OutputChunk>,
    spool: Option<Spool>,
    file: Option<File>,
}

impl OutputLog {
    pub(super) fn new(options: &OutputOptions) -> Self {
        let head_limit = options.cap - options.cap / 4;
        Self::with_limits(head_limit, options.cap / 4, options.spool_dir.clone())
    }

    fn with_limits(head_limit: u64, ring_limit: u64, spool_dir: std::path::PathBuf) -> Self {
        Self {
            head_limit,
            ring_limit,
            spool_dir,
            total: 0,
            gathering: RecordWriter::default(),
            gathering_offset: 0,
            queue: VecDeque::new(),
            queue_memory: 0,
            ring: VecDeque::new(),
            ring_gathering: RecordWriter::default(),
            ring_span: 0,
            taken: None,
            spool: None,
            file: None,
        }
    }

    /// A log of segments that lie in `file`, each given by its offset, its positions, and where its records are.
    pub(super) fn in_file(file: File, segments: impl IntoIterator<Item = (u64, u64, u64, usize)>) -> Self {
        let mut log = Self::with_limits(0, 0, std::path::PathBuf::new());
        for (offset, span, position, length) in segments {
            log.queue.push_back(Segment { offset, span, skip: 0, place: Place::File { position, length } });
            log.total = log.total.max(offset + span);
        }
        log.gathering_offset = log.total;
        log.file = Some(file);
        log
    }

    /// Positions written so far, kept or not.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Takes what was written next.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            let room = self.head_limit.saturating_sub(self.total);
            let (head, ring) = piece.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(piece.len()));
            self.total += piece.len() as u64;
            if !head.is_empty() {
                self.gathering.push(stream, head);
                if self.gathering.len() >= SEGMENT {
                    self.cut();
                }
            }
            if !ring.is_empty() {
                self.ring_gathering.push(stream, ring);
                self.ring_span += ring.len() as u64;
                if self.ring_gathering.len() >= SEGMENT {
                    self.cut_ring();
                }
            }
        }
    }

    /// Whether something gathers that no segment has yet.
    pub(super) fn is_gathering(&self) -> bool {
        !self.gathering.is_empty()
    }

    /// Makes a segment of what gathers.
    pub(super) fn cut(&mut self) {
        if self.gathering.is_empty() {
            return;
        }
        let (offset, span) = (self.gathering_offset, self.gathering.span());
        let records = self.gathering.take();
        self.gathering_offset += span;
        let length = records.as_bytes().len();
        let place = if self.queue_memory + length <= MEMORY {
            self.queue_memory += length;
            Place::Memory(records)
        } else {
            self.spool(records.as_bytes(), span)
        };
        self.queue.push_back(Segment { offset, span, skip: 0, place });
    }

    fn cut_ring(&mut self) {
        let span = self.ring_gathering.span();
        if span == 0 {
            return;
        }
        let records = self.ring_gathering.take();
        let place = self.spool(records.as_bytes(), span);
        self.ring.push_back(Segment { offset: 0, span, skip: 0, place });
        while let Some(oldest) = self.ring.front()
            && self.ring_span - oldest.span >= self.ring_limit
        {
            self.ring_span -= oldest.span;
            if let Some(oldest) = self.ring.pop_front() {
                self.release(&oldest.place);
            }
        }
    }

    fn spool(&mut self, bytes: &Bytes, span: u64) -> Place {
        match self.put(bytes) {
            Ok(slot) => Place::Spool { slot, length: bytes.len() },
            Err(error) => {
                tracing::warn!(directory = %self.spool_dir.display(), %error, "output is lost: it can't be spooled");
                let mut writer = RecordWriter::default();
                writer.gap(span);
                Place::Memory(writer.take())
            }
        }
    }

    fn put(&mut self, bytes: &Bytes) -> io::Result<u64> {
        if self.spool.is_none() {
            self.spool = Some(Spool::create(&self.spool_dir)?);
        }
        match &mut self.spool {
            Some(spool) => spool.put(bytes),
            None => Err(io::Error::other("no spool")),
        }
    }

    fn release(&mut self, place: &Place) {
        if let (Place::Spool { slot, .. }, Some(spool)) = (place, &mut self.spool) {
            spool.free(*slot);
        }
    }

    /// Nothing more is written: the ring follows the head, after the gap.
    pub(super) fn end(&mut self) {
        self.cut();
        self.cut_ring();
        let mut surplus = self.ring_span.saturating_sub(self.ring_limit);
        let mut offset = self.total - self.ring_span;
        let gap = offset + surplus - self.head_limit.min(self.total);
        if gap > 0 {
            self.queue.push_back(gap_segment(self.head_limit, gap));
        }
        for mut segment in std::mem::take(&mut self.ring) {
            segment.offset = offset;
            offset += segment.span;
            let cut = surplus.min(segment.span);
            surplus -= cut;
            segment.shorten(cut);
            if segment.span > 0 {
                self.queue.push_back(segment);
            } else {
                self.release(&segment.place);
            }
        }
        self.ring_span = 0;
    }

    /// The first records that are not taken yet; `None` when all are.
    pub(super) fn next(&mut self) -> Option<OutputChunk> {
        let segment = self.queue.front()?;
        let records = match &segment.place {
            Place::Memory(records) => Ok(records.clone()),
            Place::Spool { slot, length } => match &self.spool {
                Some(spool) => spool.read(*slot, *length).map(Records::trusted),
                None => Err(io::Error::other("no spool")),
            },
            Place::File { position, length } => match &self.file {
                Some(file) => read_at(file, *position, *length).map(Records::trusted),
                None => Err(io::Error::other("no file")),
            },
        };
        let records = records.map(|records| records.skip(segment.skip)).unwrap_or_else(|error| {
            tracing::warn!(%error, "output is lost: its spool can't be read");
            let mut writer = RecordWriter::default();
            writer.gap(segment.span);
            writer.take()
        });
        Some(OutputChunk { offset: segment.offset, records })
    }

    /// The coordinator has everything before `end`.
    pub(super) fn take_until(&mut self, end: u64, chunk: OutputChunk) {
        self.taken = Some(chunk);
        while let Some(first) = self.queue.front_mut()
            && first.offset < end
        {
            if first.end() > end {
                let positions = end - first.offset;
                first.shorten(positions);
                return;
            }
            if let Some(first) = self.queue.pop_front() {
                if let Place::Memory(records) = &first.place {
                    self.queue_memory = self.queue_memory.saturating_sub(records.as_bytes().len());
                }
                self.release(&first.place);
            }
        }
    }

    /// The coordinator has nothing from `end` on, though more was taken: what is still here of that is given again, and
    /// what isn't becomes a gap.
    pub(super) fn go_back(&mut self, end: u64) {
        if let Some(taken) = self.taken.take()
            && self.queue.front().is_none_or(|first| first.offset == taken.end())
            && taken.end() > end
        {
            let positions = end.saturating_sub(taken.offset);
            let (offset, span) = (taken.offset + positions, taken.end() - taken.offset - positions);
            let place = Place::Memory(taken.records.skip(positions));
            self.queue.push_front(Segment { offset, span, skip: 0, place });
        }
        let first = self.queue.front().map_or(self.gathering_offset, |first| first.offset);
        if first > end {
            tracing::warn!(
                bytes = first - end,
                "output is lost: the server didn't keep it, and it isn't here any more"
            );
            self.queue.push_front(gap_segment(end, first - end));
        }
    }

    /// How many encoded bytes are not taken yet, at most: the size of what [`remaining`](Self::remaining) would give.
    pub(super) fn encoded_len(&self) -> usize {
        let segments = self.queue.iter().map(|segment| match &segment.place {
            Place::Memory(records) => records.as_bytes().len(),
            Place::Spool { length, .. } | Place::File { length, .. } => *length,
        });
        segments.sum::<usize>() + self.gathering.len()
    }

    /// Everything that is not taken yet, in one piece; `None` when there is nothing. For little output only.
    pub(super) fn remaining(&mut self) -> Option<OutputChunk> {
        if self.queue.is_empty() && self.gathering.is_empty() {
            return None;
        }
        if self.queue.is_empty() {
            return Some(OutputChunk { offset: self.gathering_offset, records: self.gathering.take() });
        }
        let mut bytes = Vec::new();
        let offset = self.queue.front().map_or(0, |first| first.offset);
        while let Some(chunk) = self.next() {
            bytes.extend_from_slice(chunk.records.as_bytes());
            let end = chunk.end();
            self.take_until(end, chunk);
        }
        bytes.extend_from_slice(self.gathering.take().as_bytes());
        Some(OutputChunk { offset, records: Records::trusted(bytes.into()) })
    }
}

fn gap_segment(offset: u64, span: u64) -> Segment {
    let mut writer = RecordWriter::default();
    writer.gap(span);
    Segment { offset, span, skip: 0, place: Place::Memory(writer.take()) }
}

#[cfg(test)]
mod tests {
    use executr_api::output::Record;

    use super::*;

    fn log(head: u64, ring: u64) -> (tempfile::TempDir, OutputLog) {
        let temp = tempfile::tempdir().unwrap();
        let log = OutputLog::with_limits(head, ring, temp.path().to_owned());
        (temp, log)
    }

    /// The byte at each position; different for positions near each other.
    fn byte(position: u64) -> u8 {
        (position % 251) as u8
    }

    fn write(log: &mut OutputLog, bytes: u64, piece: u64) {
        let start = log.total();
        let mut position = start;
        while position < start + bytes {
            let length = piece.min(start + bytes - position);
            let stream = if (position / piece).is_multiple_of(2) { Stream::Stdout } else { Stream::Stderr };
            log.push(stream, &(position..position + length).map(byte).collect::<Vec<_>>());
            position += length;
        }
    }

    /// Takes everything and checks each byte by its position; says what was kept and what was gap.
    fn drain(log: &mut OutputLog, from: u64) -> Vec<(bool, u64)> {
        let mut position = from;
        let mut runs: Vec<(bool, u64)> = Vec::new();
        while let Some(chunk) = log.next() {
            assert_eq!(chunk.offset, position);
            for record in chunk.records.iter() {
                let kept = match &record {
                    Record::Data { bytes, .. } => {
                        assert!(bytes.iter().zip(position..).all(|(found, at)| *found == byte(at)), "at {position}");
                        true
                    }
                    Record::Gap(_) => false,
                };
                position += record.span();
                match runs.last_mut() {
                    Some((last, span)) if *last == kept => *span += record.span(),
                    _ => runs.push((kept, record.span())),
                }
            }
            assert_eq!(chunk.end(), position);
            log.take_until(position, chunk);
        }
        assert_eq!(position, log.total());
        runs
    }

    #[test]
    fn up_to_the_cap_everything_is_kept() {
        for total in [1, 2_999_999, 3_000_000, 3_000_001, 4_000_000] {
            let (_temp, mut log) = log(3_000_000, 1_000_000);
            write(&mut log, total, 777);
            log.end();
            assert_eq!(drain(&mut log, 0), [(true, total)], "{total}");
        }
    }

    #[test]
    fn beyond_the_cap_the_first_and_the_last_are_kept_exactly() {
        for (total, piece) in [(4_000_001, 10_000), (4_300_000, 9), (12_000_000, 65_536), (9_999_999, 300_001)] {
            let (_temp, mut log) = log(3_000_000, 1_000_000);
            write(&mut log, total, piece);
            log.end();
            assert_eq!(
                drain(&mut log, 0),
                [(true, 3_000_000), (false, total - 4_000_000), (true, 1_000_000)],
                "{total}"
            );
        }
    }

    #[test]
    fn a_cap_of_nothing_keeps_nothing_but_its_length() {
        let (_temp, mut log) = log(0, 0);
        write(&mut log, 500_000, 1_000);
        log.end();
        assert_eq!(drain(&mut log, 0), [(false, 500_000)]);
    }

    #[test]
    fn what_waits_long_lies_on_disk() {
        let (_temp, mut log) = log(u64::MAX, 0);
        write(&mut log, 20 << 20, 50_000);
        assert!(log.queue_memory <= MEMORY);
        assert!(log.spool.is_some());
        write(&mut log, 10, 10);
        log.end();
        assert_eq!(drain(&mut log, 0), [(true, (20 << 20) + 10)]);
    }

    #[test]
    fn part_of_a_segment_may_be_taken() {
        let (_temp, mut log) = log(u64::MAX, 0);
        write(&mut log, 100_000, 1_000);
        log.cut();
        let chunk = log.next().unwrap();
        log.take_until(33_333, chunk);
        log.end();
        assert_eq!(drain(&mut log, 33_333), [(true, 66_667)]);
    }

    #[test]
    fn what_the_server_lost_is_given_again_or_becomes_a_gap() {
        let (_temp, mut log) = log(u64::MAX, 0);
        write(&mut log, 100_000, 1_000);
        log.cut();
        let chunk = log.next().unwrap();
        log.take_until(100_000, chunk);
        write(&mut log, 50_000, 1_000);
        log.go_back(40_000);
        log.end();
        assert_eq!(drain(&mut log, 40_000), [(true, 110_000)]);

        log.go_back(20_000);
        assert_eq!(drain(&mut log, 20_000), [(false, 80_000), (true, 50_000)]);
    }

    #[test]
    fn little_output_is_had_in_one_piece() {
        let (_temp, mut log) = log(100, 100);
        assert_eq!(log.remaining(), None);
        write(&mut log, 90, 10);
        log.cut();
        write(&mut log, 60, 10);
        log.end();
        assert!(log.encoded_len() < 1_000);
        let chunk = log.remaining().unwrap();
        assert_eq!((chunk.offset, chunk.records.span()), (0, 150));
        assert_eq!(log.remaining(), None);
    }
}
