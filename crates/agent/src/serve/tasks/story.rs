//! What a task's caller is to learn and may not have learned yet, in order and bounded.
//!
//! What happens is put at the end, and taken away from the front once the caller has it. A reader goes along by number, so a
//! caller who lost the stream goes on with the first piece that it lacks.

use std::collections::VecDeque;

use executr_agent_protocol::UNACKNOWLEDGED;
use executr_agent_protocol::v1::task_response::Message;
use executr_agent_protocol::v1::{Received, Stream, TaskOutput};

/// What a piece costs beside its bytes: what it takes to keep it.
const PIECE: usize = 256;

/// Output shorter than this joins what waits before it.
const SMALL: usize = 4 * 1024;

/// The pieces.
#[derive(Debug, Default)]
pub(super) struct Story {
    pieces: VecDeque<Message>,
    /// The number of the first of them.
    first: u64,
    /// What they cost.
    kept: usize,
}

impl Story {
    /// Puts `message` behind all others.
    pub(super) fn push(&mut self, message: Message, unread_from: u64) {
        if let (Message::Output(output), true) = (&message, unread_from < self.end())
            && let Some(Message::Output(before)) = self.pieces.back_mut()
            && before.stream == output.stream
            && before.data.len() + output.data.len() <= SMALL
        {
            let joined = [&before.data[..], &output.data[..]].concat();
            self.kept += output.data.len();
            before.data = joined.into();
            return;
        }
        self.kept += cost(&message);
        self.pieces.push_back(message);
    }

    /// Whether nothing more may be put.
    pub(super) fn is_full(&self) -> bool {
        self.kept >= UNACKNOWLEDGED
    }

    /// The number of the next piece that will be put.
    pub(super) fn end(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    /// The number of the first piece that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// A piece by its number.
    pub(super) fn get(&self, number: u64) -> Option<&Message> {
        self.pieces.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Forgets everything before `number`.
    pub(super) fn forget_before(&mut self, number: u64) {
        while self.first < number && self.drop_first() {}
    }

    /// Forgets what was received. What was received in part is kept in part.
    pub(super) fn acknowledge(&mut self, received: &Received) {
        while let Some(piece) = self.pieces.front_mut() {
            match piece {
                Message::Started(_) if received.started => {}
                Message::Log(log) if log.sequence <= received.logs => {}
                Message::Result(_) if received.result => {}
                Message::Output(output) => {
                    let length = output.data.len() as u64;
                    let known = known(received, output).saturating_sub(output.offset);
                    if known < length {
                        // Less than its length, which is one of memory.
                        drop(output.data.split_to(known as usize));
                        output.offset += known;
                        self.kept -= known as usize;
                        return;
                    }
                }
                _ => return,
            }
            self.drop_first();
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some(piece) = self.pieces.pop_front() else { return false };
        self.kept -= cost(&piece);
        self.first += 1;
        true
    }
}

/// How much of a piece's stream was received.
fn known(received: &Received, output: &TaskOutput) -> u64 {
    match output.stream() {
        Stream::Stdout => received.stdout,
        Stream::Stderr => received.stderr,
        Stream::Unspecified => 0,
    }
}

fn cost(message: &Message) -> usize {
    PIECE
        + match message {
            Message::Output(output) => output.data.len(),
            Message::Log(log) => log.text.len(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use executr_agent_protocol::v1::{TaskLog, TaskResult, TaskStarted};

    use super::*;

    fn output(stream: Stream, offset: u64, data: &'static [u8]) -> Message {
        Message::Output(TaskOutput { stream: stream.into(), offset, data: data.into() })
    }

    fn story() -> Story {
        let mut story = Story::default();
        // All of it was read already, so nothing joins.
        for message in [
            Message::Started(TaskStarted { pid: 7 }),
            output(Stream::Stdout, 0, b"abc"),
            output(Stream::Stderr, 0, b"xy"),
            Message::Log(TaskLog { sequence: 1, ..TaskLog::default() }),
            output(Stream::Stdout, 3, b"def"),
            Message::Result(TaskResult::default()),
        ] {
            let end = story.end();
            story.push(message, end);
        }
        story
    }

    #[test]
    fn what_was_received_is_forgotten_and_nothing_else() {
        let all = story();
        for stdout in 0..=6 {
            for stderr in 0..=2 {
                let mut story = story();
                let received = Received { started: true, stdout, stderr, logs: 1, result: false };
                story.acknowledge(&received);
                let mut seen = (stdout, stderr);
                for number in story.first()..story.end() {
                    match story.get(number).unwrap() {
                        Message::Output(output) if output.stream() == Stream::Stdout => {
                            assert!(output.offset <= seen.0, "a gap");
                            seen.0 = output.offset + output.data.len() as u64;
                        }
                        Message::Output(output) => seen.1 = output.offset + output.data.len() as u64,
                        _ => {}
                    }
                }
                assert_eq!(seen, (6, 2), "all of it is known or kept");
                assert!(matches!(story.get(story.end() - 1), Some(Message::Result(_))));
                assert_eq!(story.end(), all.end());
            }
        }
        let mut story = story();
        story.acknowledge(&Received { started: true, stdout: 6, stderr: 2, logs: 1, result: true });
        assert_eq!((story.first(), story.kept), (6, 0));
    }

    #[test]
    fn it_is_full_at_its_bound_whatever_the_pieces() {
        for size in [1, 100, 64 * 1024] {
            let mut story = Story::default();
            let mut offset = 0;
            while !story.is_full() {
                let data = vec![0; size].into();
                let end = story.end();
                story.push(Message::Output(TaskOutput { stream: 1, offset, data }), end);
                offset += size as u64;
            }
            assert!(offset <= (UNACKNOWLEDGED + size) as u64);
            assert!(story.end() <= (UNACKNOWLEDGED / PIECE) as u64);
            story.acknowledge(&Received { stdout: offset, ..Received::default() });
            assert!(!story.is_full() && story.kept == 0);
        }
    }

    #[test]
    fn small_output_joins_what_nobody_has_read() {
        let mut story = Story::default();
        for (number, byte) in b"abcdef".iter().enumerate() {
            let data = bytes::Bytes::copy_from_slice(&[*byte]);
            story.push(Message::Output(TaskOutput { stream: 1, offset: number as u64, data }), 0);
        }
        assert_eq!(story.end(), 1);
        assert!(matches!(story.get(0), Some(Message::Output(output)) if &output.data[..] == b"abcdef"));
        // One that was read stays as it was.
        story.push(output(Stream::Stdout, 6, b"g"), 1);
        assert_eq!(story.end(), 2);
        assert_eq!(story.kept, 2 * PIECE + 7);
    }

    #[test]
    fn readers_go_along_by_number() {
        let mut story = story();
        story.forget_before(2);
        assert!(story.get(1).is_none());
        assert!(matches!(story.get(2), Some(Message::Output(_))));
        story.forget_before(100);
        assert_eq!((story.first(), story.end(), story.kept), (6, 6, 0));
    }
}
