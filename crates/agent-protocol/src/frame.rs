//! A frame is a message behind its length: four bytes, big-endian, then the message.
//!
//! Encoding appends to a buffer, so that several frames leave in one write; splitting takes whole frames off the
//! front of what was read, without copying.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

/// Bytes of the length in front of every frame.
const PREFIX: usize = 4;

/// Largest frame accepted, in bytes: a task's arguments, environment and files come in one.
pub const MAX_FRAME: usize = 64 * 1024 * 1024;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error(
        "a message of {length} bytes is longer than the {MAX_FRAME} allowed; send less with one task (large files belong in blobs)"
    )]
    TooLong {
        /// What was asked for, in bytes.
        length: usize,
    },
    /// Not a message of this protocol.
    #[error("a message can't be read; driver and agent must be of the same version: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// Appends `message` as one frame.
///
/// # Errors
/// When the message is longer than [`MAX_FRAME`]; nothing is appended then.
pub fn encode(message: &impl Message, into: &mut Vec<u8>) -> Result<(), FrameError> {
    let length = message.encoded_len();
    if length > MAX_FRAME {
        return Err(FrameError::TooLong { length });
    }
    into.reserve(PREFIX + length);
    into.extend_from_slice(&(length as u32).to_be_bytes());
    message.encode(into).expect("a vector grows as needed");
    Ok(())
}

/// Takes the first whole frame off `buffer`; `None` when it isn't complete yet, with room reserved for the rest.
///
/// # Errors
/// When the frame announced is longer than [`MAX_FRAME`] or not a message; the stream is then of no more use.
pub fn split<M: Message + Default>(buffer: &mut BytesMut) -> Result<Option<M>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong { length });
    }
    if buffer.len() < PREFIX + length {
        buffer.reserve(PREFIX + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(PREFIX);
    let body: Bytes = buffer.split_to(length).freeze();
    Ok(Some(M::decode(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::v1::{Output, Ping};
    use crate::v1::TaskOutput;

    #[test]
    fn frames_come_back_in_order_across_any_split() {
        let mut wire = Vec::new();
        for nonce in [1, 300, u64::MAX] {
            encode(&Ping { nonce }, &mut wire).unwrap();
        }
        for cut in 0..=wire.len() {
            let mut buffer = BytesMut::from(&wire[..cut]);
            let mut seen = Vec::new();
            while let Some(ping) = split::<Ping>(&mut buffer).unwrap() {
                seen.push(ping.nonce);
            }
            buffer.extend_from_slice(&wire[cut..]);
            while let Some(ping) = split::<Ping>(&mut buffer).unwrap() {
                seen.push(ping.nonce);
            }
            assert_eq!(seen, [1, 300, u64::MAX], "cut at {cut}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn an_empty_message_is_a_frame() {
        let mut wire = Vec::new();
        encode(&Ping { nonce: 0 }, &mut wire).unwrap();
        assert_eq!(wire, [0, 0, 0, 0]);
        let mut buffer = BytesMut::from(&wire[..]);
        assert_eq!(split::<Ping>(&mut buffer).unwrap(), Some(Ping { nonce: 0 }));
    }

    #[test]
    fn payloads_keep_every_byte() {
        let data: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let output = TaskOutput { stream: 2, offset: 1 << 40, data: data.into() };
        let output = Output { task_id: 7, output: Some(output) };
        let mut wire = Vec::new();
        encode(&output, &mut wire).unwrap();
        let mut buffer = BytesMut::from(&wire[..]);
        assert_eq!(split::<Output>(&mut buffer).unwrap(), Some(output));
    }

    #[test]
    fn an_announced_giant_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(split::<Ping>(&mut buffer), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn garbage_is_refused() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]);
        assert!(matches!(split::<Ping>(&mut buffer), Err(FrameError::Malformed(_))));
    }
}
