//! A file of records, one after another.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use executr_api::output::{MAX_RECORD, RECORD_HEADER, Record, RecordWriter, Records};

use crate::StoreError;
use crate::sqlite::error::from_file;

/// A place is remembered about every so many bytes of file.
const STRIDE: u64 = 1 << 20;

/// Where some of the records begin, so that reading from anywhere starts nearby.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    /// (position in the output, place in the file), ascending, of record beginnings; (0, 0) is left out.
    marks: Vec<(u64, u64)>,
    /// The position after the last record.
    pub(super) end: u64,
    /// The size of the file, as far as it holds whole records.
    pub(super) size: u64,
}

impl Map {
    /// The records are there too, at the end.
    pub(super) fn extend(&mut self, records: &Records) {
        self.extend_by(records.as_bytes().len() as u64, records.span());
    }

    fn extend_by(&mut self, size: u64, span: u64) {
        if self.size >= self.marks.last().map_or(0, |(_, at)| *at) + STRIDE {
            self.marks.push((self.end, self.size));
        }
        self.size += size;
        self.end = self.end.saturating_add(span);
    }

    /// The last known record beginning at or before a position.
    fn before(&self, position: u64) -> (u64, u64) {
        let at = self.marks.partition_point(|(known, _)| *known <= position);
        at.checked_sub(1).map_or((0, 0), |at| self.marks[at])
    }
}

/// An open segment file.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    path: PathBuf,
}

impl Segment {
    /// Opens one that is there.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        match File::options().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(from_file(path)(error)),
        }
    }

    /// Makes an empty one.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let open = || File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = match (open(), path.parent()) {
            (Err(error), Some(directory)) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(directory).and_then(|()| open())
            }
            (opened, _) => opened,
        };
        Ok(Self { file: file.map_err(from_file(path))?, path: path.to_owned() })
    }

    fn failed(&self) -> impl FnOnce(std::io::Error) -> StoreError {
        from_file(&self.path)
    }

    /// Goes through all records. What comes after the last whole one (an end torn off by a crash) doesn't count.
    pub(super) fn scan(&self) -> Result<Map, StoreError> {
        let mut map = Map::default();
        let size = self.file.metadata().map_err(self.failed())?.len();
        let mut reader = BufReader::with_capacity(1 << 16, FromStart { file: &self.file, at: 0 });
        let mut payload = Vec::new();
        while size - map.size >= RECORD_HEADER as u64 {
            let mut header = [0; RECORD_HEADER];
            reader.read_exact(&mut header).map_err(self.failed())?;
            let [_, length @ ..] = header;
            let length = u32::from_le_bytes(length) as usize;
            if length > MAX_RECORD || size - map.size < (RECORD_HEADER + length) as u64 {
                break;
            }
            payload.clear();
            payload.extend_from_slice(&header);
            payload.resize(RECORD_HEADER + length, 0);
            reader.read_exact(&mut payload[RECORD_HEADER..]).map_err(self.failed())?;
            let Ok(record) = Records::parse(Bytes::copy_from_slice(&payload)) else { break };
            map.extend(&record);
        }
        Ok(map)
    }

    /// Cuts off what isn't whole records, so that appending can go on.
    pub(super) fn recover(&self) -> Result<Map, StoreError> {
        let map = self.scan()?;
        self.file.set_len(map.size).map_err(self.failed())?;
        Ok(map)
    }

    /// Adds records at the end that `map` knows.
    pub(super) fn append(&self, map: &mut Map, records: &Records) -> Result<(), StoreError> {
        self.file.write_all_at(records.as_bytes(), map.size).map_err(self.failed())?;
        map.extend(records);
        Ok(())
    }

    /// Brings all of it to the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(self.failed())
    }

    /// All of it, when it is small.
    pub(super) fn bytes(&self, map: &Map) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; usize::try_from(map.size).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, 0).map_err(self.failed())?;
        Ok(bytes.into())
    }

    /// Reads from a position on, about `max_bytes` and at least one record.
    pub(super) fn read(&self, map: &Map, offset: u64, max_bytes: usize) -> Result<Records, StoreError> {
        let mut writer = RecordWriter::default();
        let (mut position, mut at) = map.before(offset);
        let mut buffer = Vec::new();
        while position < map.end && at < map.size && (writer.is_empty() || writer.len() < max_bytes) {
            // What is wanted and a little more, but a whole record at least.
            let wanted = (max_bytes - writer.len().min(max_bytes)).clamp(64 << 10, MAX_RECORD) + RECORD_HEADER;
            let length = usize::try_from(map.size - at).unwrap_or(usize::MAX);
            let mut whole = self.fill(&mut buffer, at, length.min(wanted))?;
            if whole == 0 {
                whole = self.fill(&mut buffer, at, length.min(MAX_RECORD + RECORD_HEADER))?;
            }
            if whole == 0 {
                break;
            }
            at += whole as u64;
            buffer.truncate(whole);
            for record in Records::trusted(std::mem::take(&mut buffer).into()).iter() {
                let span = record.span();
                if position + span > offset && (writer.is_empty() || writer.len() < max_bytes) {
                    push(&mut writer, &cut(record, offset.saturating_sub(position)));
                }
                position += span;
            }
        }
        Ok(writer.take())
    }

    /// Reads `length` bytes; returns how many of them are whole records.
    fn fill(&self, buffer: &mut Vec<u8>, at: u64, length: usize) -> Result<usize, StoreError> {
        buffer.resize(length, 0);
        self.file.read_exact_at(buffer, at).map_err(self.failed())?;
        let mut whole = 0;
        while let Some([_, length @ ..]) = buffer[whole..].first_chunk::<RECORD_HEADER>() {
            let next = whole + RECORD_HEADER + u32::from_le_bytes(*length) as usize;
            if next > buffer.len() {
                break;
            }
            whole = next;
        }
        Ok(whole)
    }
}

/// The record without its first `positions`.
fn cut(record: Record, positions: u64) -> Record {
    match record {
        Record::Gap(skipped) => Record::Gap(skipped - positions),
        // Below its length, which is that of something in memory.
        Record::Data { stream, bytes } => Record::Data { stream, bytes: bytes.slice(positions as usize..) },
    }
}

/// Adds a record.
pub(super) fn push(writer: &mut RecordWriter, record: &Record) {
    match record {
        Record::Gap(skipped) => writer.gap(*skipped),
        Record::Data { stream, bytes } => writer.push(*stream, bytes),
    }
}

/// Reads a file from its start, whatever its own place is.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use executr_api::output::Stream;

    use super::*;

    fn filled() -> (tempfile::TempDir, Segment, Map) {
        let directory = tempfile::tempdir().expect("a directory");
        let segment = Segment::create(&directory.path().join("ab/segment")).expect("created");
        let mut map = Map::default();
        for n in 0..5_000_u32 {
            let mut writer = RecordWriter::default();
            writer.push(if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, &vec![n as u8; 1_000]);
            segment.append(&mut map, &writer.take()).expect("appended");
        }
        (directory, segment, map)
    }

    #[test]
    fn a_scan_finds_what_appending_noted() {
        let (_directory, segment, map) = filled();
        let found = segment.scan().expect("scanned");
        assert_eq!((&found.marks, found.end, found.size), (&map.marks, map.end, map.size));
        assert_eq!(map.marks.len(), 4);
        assert_eq!(map.before(4_999_999), map.marks[3]);
    }

    #[test]
    fn torn_ends_are_cut_off() {
        let (_directory, segment, mut map) = filled();
        for torn in [&[1_u8][..], &[1, 200, 0, 0, 0, 7, 7], &[0; 4_096], &[1, 255, 255, 255, 255, 0]] {
            segment.file.write_all_at(torn, map.size).expect("written");
            let recovered = segment.recover().expect("recovered");
            assert_eq!((recovered.end, recovered.size), (map.end, map.size));
            assert_eq!(segment.file.metadata().expect("metadata").len(), map.size);
        }
        let mut writer = RecordWriter::default();
        writer.push(Stream::Stdout, b"more");
        segment.append(&mut map, &writer.take()).expect("appended");
        assert_eq!(segment.read(&map, 5_000_002, 100).expect("read").span(), 2);
    }

    #[test]
    fn reading_starts_anywhere_and_stops_soon() {
        let (_directory, segment, map) = filled();
        for offset in [0, 1, 999, 1_000, 1_234_567, 4_999_999] {
            let records = segment.read(&map, offset, 10_000).expect("read");
            let Some(Record::Data { bytes, .. }) = records.iter().next() else { panic!("data at {offset}") };
            assert_eq!((bytes[0], bytes.len() as u64), ((offset / 1_000) as u8, 1_000 - offset % 1_000));
            assert!(records.as_bytes().len() < 12_000);
        }
        assert!(segment.read(&map, 5_000_000, 10_000).expect("read").is_empty());
    }
}
