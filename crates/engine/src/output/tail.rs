//! Output that couldn't be appended before its attempt ended.
//!
//! On disk it is a file of segments: offset and length, each eight bytes little endian, then the encoded records.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use executr_api::output::Records;
use executr_api::{ApiError, Fence, WorkerApi};

use super::feed::{Settled, settle};
use super::log::OutputLog;
use super::spool::SLOT;

/// Output still to be appended.
#[derive(Debug)]
pub struct Tail(OutputLog);

impl Tail {
    pub(super) fn new(log: OutputLog) -> Self {
        Self(log)
    }

    /// Writes it to a new file, synced, and goes on from there.
    ///
    /// # Errors
    /// When the file can't be written; the output is then gone.
    pub fn save(mut self, path: &Path) -> io::Result<Self> {
        let mut writer = BufWriter::new(File::create(path)?);
        while let Some(chunk) = self.0.next() {
            writer.write_all(&chunk.offset.to_le_bytes())?;
            writer.write_all(&(chunk.records.as_bytes().len() as u64).to_le_bytes())?;
            writer.write_all(chunk.records.as_bytes())?;
            let end = chunk.end();
            self.0.take_until(end, chunk);
        }
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Self::load(path)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// When the file can't be read or is damaged.
    pub fn load(path: &Path) -> io::Result<Self> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "saved output is damaged");
        let file = File::open(path)?;
        let mut reader = BufReader::with_capacity(SLOT, &file);
        let mut segments = Vec::new();
        let mut position = 0;
        loop {
            let mut header = [0; 16];
            match reader.read_exact(&mut header) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && reader.stream_position()? == position => {
                    break;
                }
                Err(error) => return Err(error),
            }
            let [offset, length] = [0, 8].map(|at| {
                let mut word = [0; 8];
                word.copy_from_slice(&header[at..at + 8]);
                u64::from_le_bytes(word)
            });
            let length = usize::try_from(length).ok().filter(|length| *length <= 2 * SLOT).ok_or_else(damaged)?;
            let mut records = vec![0; length];
            reader.read_exact(&mut records)?;
            let records = Records::parse(records.into()).map_err(|_| damaged())?;
            position += 16;
            segments.push((offset, records.span(), position, length));
            position += length as u64;
        }
        drop(reader);
        Ok(Self(OutputLog::in_file(file, segments)))
    }

    /// Appends the next part; whether that was all there is to do.
    ///
    /// # Errors
    /// When the coordinator can't take it now; try again later.
    pub async fn send_next(&mut self, api: &Arc<dyn WorkerApi>, fence: &Fence, token: &str) -> Result<bool, ApiError> {
        let Some(chunk) = self.0.next() else { return Ok(true) };
        let answer = api.append_output(fence, token, chunk.clone()).await;
        match settle(&mut self.0, answer, chunk) {
            Settled::Taken => Ok(false),
            Settled::Later(error) => Err(error),
            Settled::Refused(error) => {
                tracing::warn!(%fence, %error, "the server takes no more output");
                Ok(true)
            }
        }
    }
}
