//! A task's standard input: what was sent and not taken yet, and the descriptor it goes into.
//!
//! Nothing here waits: as much is written as the process, or its terminal, has room for.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::termios::{SpecialCodeIndex, tcgetattr};

/// Bytes taken after which the driver is told at once.
const TELL: u64 = 64 * 1024;

/// What ends input from a terminal, unless it says otherwise: ^D.
const END_OF_FILE: u8 = 4;

/// Standard input of a task.
#[derive(Debug)]
pub(super) struct Input {
    /// `None` once nobody reads any more.
    into: Option<OwnedFd>,
    is_terminal: bool,
    waiting: VecDeque<Bytes>,
    /// Nothing comes behind these.
    is_last: bool,
    received: u64,
    taken: u64,
    told: u64,
}

impl Input {
    /// Into a pipe whose writing end doesn't wait.
    pub(super) fn pipe(into: OwnedFd) -> Self {
        Self::new(Some(into), false)
    }

    /// Into a terminal, whose master doesn't wait.
    pub(super) fn terminal(into: OwnedFd) -> Self {
        Self::new(Some(into), true)
    }

    /// There is none: all is dropped.
    pub(super) fn none() -> Self {
        Self::new(None, false)
    }

    fn new(into: Option<OwnedFd>, is_terminal: bool) -> Self {
        Self { into, is_terminal, waiting: VecDeque::new(), is_last: false, received: 0, taken: 0, told: 0 }
    }

    /// Puts bytes behind those that wait.
    pub(super) fn push(&mut self, data: Bytes, last: bool) {
        if self.is_last {
            return;
        }
        self.received += data.len() as u64;
        self.is_last = last;
        if !data.is_empty() {
            self.waiting.push_back(data);
        }
        if let (true, true, Some(terminal)) = (last, self.is_terminal, &self.into) {
            let end = tcgetattr(terminal).map_or(END_OF_FILE, |found| found.special_codes[SpecialCodeIndex::VEOF]);
            self.waiting.push_back(Bytes::copy_from_slice(&[end]));
        }
        self.write();
    }

    /// What is to be polled for room.
    pub(super) fn wants(&self) -> Option<BorrowedFd<'_>> {
        self.into.as_ref().filter(|_| !self.waiting.is_empty()).map(AsFd::as_fd)
    }

    /// Writes as much as there is room for.
    pub(super) fn write(&mut self) {
        while let (Some(into), Some(first)) = (&self.into, self.waiting.front_mut()) {
            match rustix::io::write(into, first) {
                Ok(written) => {
                    first.advance(written);
                    if first.is_empty() {
                        self.waiting.pop_front();
                    }
                    // The character that ends input from a terminal wasn't received.
                    self.taken = self.received.min(self.taken + written as u64);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads any more.
                Err(_) => self.close(),
            }
        }
        if self.into.is_none() || (self.is_last && !self.is_terminal) {
            self.close();
        }
    }

    fn close(&mut self) {
        self.into = None;
        self.waiting.clear();
        self.taken = self.received;
    }

    /// How much was taken, if the driver is to be told now.
    pub(super) fn news(&mut self) -> Option<u64> {
        let is_due = self.taken - self.told >= TELL || (self.waiting.is_empty() && self.taken > self.told);
        is_due.then(|| {
            self.told = self.taken;
            self.taken
        })
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_room_for() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        let mut input = Input::pipe(writer);
        let data = Bytes::from(vec![7; 200_000]);
        input.push(data, true);
        let first = input.news().unwrap();
        assert!(first < 200_000 && input.wants().is_some());
        let mut room = [0; 100_000];
        let mut read = 0;
        loop {
            match rustix::io::read(&reader, &mut room) {
                Ok(0) => break,
                Ok(some) => read += some,
                Err(Errno::AGAIN) => input.write(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(read, 200_000);
        assert_eq!(input.news(), Some(200_000));
        assert!(input.news().is_none() && input.wants().is_none());
    }

    #[test]
    fn what_nobody_reads_counts_as_taken() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        drop(reader);
        for mut input in [Input::pipe(writer), Input::none()] {
            input.push(Bytes::from_static(b"abc"), false);
            assert_eq!(input.news(), Some(3));
            assert!(input.wants().is_none());
        }
    }
}
