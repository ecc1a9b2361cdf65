//! How much of an archive may be read: in all, and between two entries, where a header may claim any length and be read
//! into memory.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Headers of one entry are no longer, in bytes, with long names and attributes.
pub(super) const LONGEST_HEADERS: u64 = 2 << 20;

/// Reads on until a limit.
pub(super) struct Measured<R> {
    inner: R,
    gauge: Gauge,
}

/// What is left to read.
#[derive(Clone)]
pub(super) struct Gauge {
    total: Rc<Cell<u64>>,
    headers: Rc<Cell<Option<u64>>>,
}

impl Gauge {
    /// Begins to read headers: they have a limit of their own.
    pub(super) fn in_headers(&self) {
        self.headers.set(Some(LONGEST_HEADERS));
    }

    /// Begins to read content.
    pub(super) fn in_content(&self) {
        self.headers.set(None);
    }

    /// Whether the total's limit was hit.
    pub(super) fn is_used_up(&self) -> bool {
        self.total.get() == 0
    }

    /// Whether the limit of headers was hit.
    pub(super) fn are_headers_used_up(&self) -> bool {
        self.headers.get() == Some(0)
    }
}

impl<R> Measured<R> {
    pub(super) fn new(inner: R, total: u64) -> (Self, Gauge) {
        let gauge = Gauge { total: Rc::new(Cell::new(total)), headers: Rc::new(Cell::new(None)) };
        (Self { inner, gauge: gauge.clone() }, gauge)
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.gauge.total.get().min(self.gauge.headers.get().unwrap_or(u64::MAX));
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("more than may be read"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.gauge.total.set(self.gauge.total.get() - read as u64);
        if let Some(headers) = self.gauge.headers.get() {
            self.gauge.headers.set(Some(headers - read as u64));
        }
        Ok(read)
    }
}
