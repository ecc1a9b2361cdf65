//! Output: the bytes of stdout and stderr in the order they were read, addressed by offset.
//!
//! An attempt's output is a sequence of records. A record belongs to a stream and covers as many positions as it has
//! bytes; a [`Stream::Gap`] record covers the positions of bytes that were not kept, and carries their number instead.
//! Offsets therefore are true positions in what the job wrote, gaps or not, so a resend of bytes that are there already
//! is recognised and changes nothing.
//!
//! Encoded, a record is one byte for the stream, four for the length (little endian), then the payload.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use utoipa::ToSchema;

/// The most payload bytes of one encoded record; longer ones are split.
pub const MAX_RECORD: usize = 1 << 20;
/// Bytes an encoded record takes beside its payload.
pub const RECORD_HEADER: usize = 5;

/// Where bytes were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere: bytes between that were not kept, because the output grew over its cap.
    Gap,
    /// Not the job's: a line of JSON that says what happened to a step here ([`StepMark`](crate::StepMark)). Only in
    /// jobs of runs. Records of marks are never merged with others.
    Mark,
}

impl Stream {
    fn code(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Gap => 0,
            Self::Mark => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            0 => Some(Self::Gap),
            3 => Some(Self::Mark),
            _ => None,
        }
    }
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Bytes that were written.
    Data {
        /// Where.
        stream: Stream,
        /// The bytes; never empty, at most [`MAX_RECORD`].
        bytes: Bytes,
    },
    /// So many bytes were written here and not kept.
    Gap(u64),
}

impl Record {
    /// How many positions it covers.
    #[must_use]
    pub fn span(&self) -> u64 {
        match self {
            Self::Data { bytes, .. } => bytes.len() as u64,
            Self::Gap(skipped) => *skipped,
        }
    }
}

/// Bytes that are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// They end within a record.
    #[error("the output ends within a record; send whole records")]
    Truncated,
    /// The stream byte is none.
    #[error("{0} is not a stream; 0 is a gap, 1 is stdout, 2 is stderr, 3 is a mark")]
    Stream(u8),
    /// A record is empty or too long.
    #[error("a record of {0} bytes; between 1 and {MAX_RECORD} are allowed")]
    Length(usize),
}

/// Encoded records, whole and checked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Records(Bytes);

impl Records {
    /// Takes bytes from outside after checking them.
    ///
    /// # Errors
    /// When they are not whole records.
    pub fn parse(bytes: Bytes) -> Result<Self, RecordError> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (_, _, tail) = split(rest)?;
            rest = tail;
        }
        Ok(Self(bytes))
    }

    /// Takes bytes that were checked when they were stored.
    #[must_use]
    pub fn trusted(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The records one by one, without copying. Stops at the first damaged one.
    pub fn iter(&self) -> impl Iterator<Item = Record> + use<> {
        let mut rest = self.0.clone();
        std::iter::from_fn(move || {
            let (stream, length, _) = split(&rest).ok()?;
            rest.advance(RECORD_HEADER);
            let mut payload = rest.split_to(length);
            Some(match stream {
                Stream::Gap => Record::Gap(payload.get_u64_le()),
                stream => Record::Data { stream, bytes: payload },
            })
        })
    }

    /// How many positions all records together cover.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.iter().fold(0, |sum, record| sum.saturating_add(record.span()))
    }

    /// The same records without the first `positions` positions. A gap that is cut becomes shorter.
    #[must_use]
    pub fn skip(&self, positions: u64) -> Self {
        if positions == 0 {
            return self.clone();
        }
        let mut left = positions;
        let mut out = RecordWriter::default();
        for record in self.iter() {
            let span = record.span();
            if left >= span {
                left -= span;
                continue;
            }
            match record {
                Record::Gap(skipped) => out.gap(skipped - left),
                // `left` is below the length, which is at most MAX_RECORD.
                Record::Data { stream, bytes } => out.push(stream, &bytes[left as usize..]),
            }
            left = 0;
        }
        out.take()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        Self::parse(bytes.into()).map_err(D::Error::custom)
    }
}

fn split(bytes: &[u8]) -> Result<(Stream, usize, &[u8]), RecordError> {
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
        return Err(RecordError::Truncated);
    };
    let [code, length @ ..] = *header;
    let stream = Stream::from_code(code).ok_or(RecordError::Stream(code))?;
    let length = u32::from_le_bytes(length) as usize;
    if length == 0 || length > MAX_RECORD || (stream == Stream::Gap && length != size_of::<u64>()) {
        return Err(RecordError::Length(length));
    }
    if rest.len() < length {
        return Err(RecordError::Truncated);
    }
    Ok((stream, length, &rest[length..]))
}

/// Encodes records.
#[derive(Debug, Default)]
pub struct RecordWriter {
    buffer: BytesMut,
    span: u64,
}

impl RecordWriter {
    /// Adds bytes of one stream, as several records when they are many.
    pub fn push(&mut self, stream: Stream, bytes: &[u8]) {
        for part in bytes.chunks(MAX_RECORD) {
            self.buffer.reserve(RECORD_HEADER + part.len());
            self.buffer.put_u8(stream.code());
            // A part is at most MAX_RECORD long.
            self.buffer.put_u32_le(part.len() as u32);
            self.buffer.put_slice(part);
            self.span += part.len() as u64;
        }
    }

    /// Adds a gap of so many bytes; nothing for 0.
    pub fn gap(&mut self, skipped: u64) {
        if skipped > 0 {
            self.buffer.put_u8(Stream::Gap.code());
            self.buffer.put_u32_le(size_of::<u64>() as u32);
            self.buffer.put_u64_le(skipped);
            self.span += skipped;
        }
    }

    /// Encoded bytes gathered so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing is gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// How many positions are covered so far.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Hands out what is gathered and starts anew.
    pub fn take(&mut self) -> Records {
        self.span = 0;
        Records(self.buffer.split().freeze())
    }
}

/// Records and the position of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputChunk {
    /// The position of the first record in the attempt's output.
    pub offset: u64,
    /// The records; base64 in JSON.
    #[schema(value_type = String, format = Byte)]
    pub records: Records,
}

impl OutputChunk {
    /// The position after the last record.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.records.span())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Records {
        let mut writer = RecordWriter::default();
        writer.push(Stream::Stdout, b"hello ");
        writer.push(Stream::Stderr, &[0xff, 0]);
        writer.gap(1_000);
        writer.push(Stream::Stdout, b"end");
        assert_eq!(writer.span(), 1_011);
        writer.take()
    }

    #[test]
    fn records_read_back_as_written_also_through_json() {
        let records = sample();
        let parsed = Records::parse(records.as_bytes().clone()).expect("whole records");
        assert_eq!(
            parsed.iter().collect::<Vec<_>>(),
            [
                Record::Data { stream: Stream::Stdout, bytes: Bytes::from_static(b"hello ") },
                Record::Data { stream: Stream::Stderr, bytes: Bytes::from_static(&[0xff, 0]) },
                Record::Gap(1_000),
                Record::Data { stream: Stream::Stdout, bytes: Bytes::from_static(b"end") },
            ]
        );
        let json = serde_json::to_string(&records).expect("JSON");
        assert_eq!(serde_json::from_str::<Records>(&json).expect("records"), records);
    }

    #[test]
    fn skipping_cuts_at_any_position() {
        let records = sample();
        for cut in 0..=1_011 {
            assert_eq!(records.skip(cut).span(), 1_011 - cut, "{cut}");
        }
        assert_eq!(
            records.skip(7).iter().next(),
            Some(Record::Data { stream: Stream::Stderr, bytes: Bytes::from_static(&[0]) })
        );
        assert_eq!(records.skip(508).iter().next(), Some(Record::Gap(500)));
        assert!(records.skip(5_000).is_empty());
    }

    #[test]
    fn damaged_records_are_refused() {
        let whole = sample().as_bytes().to_vec();
        assert_eq!(Records::parse(Bytes::copy_from_slice(&whole[..8])), Err(RecordError::Truncated));
        assert_eq!(Records::parse(Bytes::from_static(&[9, 1, 0, 0, 0, 1])), Err(RecordError::Stream(9)));
        assert_eq!(Records::parse(Bytes::from_static(&[1, 0, 0, 0, 0])), Err(RecordError::Length(0)));
        assert_eq!(Records::parse(Bytes::from_static(&[0, 1, 0, 0, 0, 1])), Err(RecordError::Length(1)));
        assert_eq!(
            Records::parse(Bytes::from_static(&[1, 255, 255, 255, 255])),
            Err(RecordError::Length(u32::MAX as usize))
        );
    }

    #[test]
    fn long_writes_are_split() {
        let mut writer = RecordWriter::default();
        writer.push(Stream::Stdout, &vec![7; MAX_RECORD + 1]);
        assert_eq!(writer.take().iter().map(|record| record.span()).collect::<Vec<_>>(), [MAX_RECORD as u64, 1]);
    }
}
