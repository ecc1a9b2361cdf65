//! The output of one attempt.

use executr_api::output::{OutputChunk, Record, RecordWriter, Records};

use crate::{AppendAnswer, OutputSlice};

/// Records in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Vec<Record>);

impl Log {
    /// The position after the last.
    pub(super) fn end(&self) -> u64 {
        self.0.iter().map(Record::span).sum()
    }

    /// Takes what is new of `chunk`.
    pub(super) fn append(&mut self, chunk: &OutputChunk) -> AppendAnswer {
        let end = self.end();
        if chunk.offset > end {
            return AppendAnswer::Gap { end };
        }
        self.0.extend(chunk.records.skip(end - chunk.offset).iter());
        AppendAnswer::Appended { end: self.end() }
    }

    /// Takes the last of the output: what is missing before it becomes a gap.
    pub(super) fn append_last(&mut self, chunk: &OutputChunk) {
        let end = self.end();
        if chunk.offset > end && !chunk.records.is_empty() {
            self.0.push(Record::Gap(chunk.offset - end));
        }
        self.append(chunk);
    }

    /// Reads from `offset` on.
    pub(super) fn read(&self, offset: u64, max_bytes: usize, sealed: bool) -> OutputSlice {
        let mut before = 0;
        let mut writer = RecordWriter::default();
        for record in &self.0 {
            let start = before;
            before += record.span();
            if before <= offset {
                continue;
            }
            if !writer.is_empty() && writer.len() >= max_bytes {
                break;
            }
            let skip = offset.saturating_sub(start);
            match record {
                Record::Gap(skipped) => writer.gap(skipped - skip),
                // Within a record, so within memory.
                Record::Data { stream, bytes } => writer.push(*stream, &bytes[skip as usize..]),
            }
        }
        let records: Records = writer.take();
        OutputSlice { records, end: self.end(), sealed }
    }
}
