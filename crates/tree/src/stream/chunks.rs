//! A stream of bytes in bounded pieces: one message each, whatever carries them.
//!
//! ```text
//! 00 BYTES                 so many bytes of the stream, at most 256 KiB
//! 01 LENGTH FRAME          a zstd frame of LENGTH bytes (four, the lowest first)
//! 02                       the end; a stream without it was cut off
//! ```
//!
//! A piece is compressed when the other side takes bytes slower than they can be compressed, which shows in the time that
//! handing them over takes: a socket on the same machine gets them as they are.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// The most bytes of the stream in one piece.
pub const CHUNK: usize = 256 << 10;
/// The most bytes of a piece.
pub const MAX_CHUNK: usize = CHUNK + 1;

const RAW: u8 = 0;
const COMPRESSED: u8 = 1;
const END: u8 = 2;
/// zstd's fastest but for those that hardly compress.
const LEVEL: i32 = 1;
/// Handing over a piece must take so long before compressing pays: about as long as compressing it takes.
const SLOW: Duration = Duration::from_micros(700);
/// After a piece that couldn't be made smaller so many go as they are.
const PAUSE: u32 = 16;

/// Cuts what is written into pieces. Dropped before [`finish`](Self::finish), it leaves a stream that was cut off.
pub struct ChunkWriter<S> {
    sink: S,
    /// The piece that is being filled, behind its first byte.
    piece: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// How long handing over a piece takes, on average.
    waited: Duration,
    /// Pieces that go as they are because one before them couldn't be made smaller.
    pause: u32,
}

impl<S: FnMut(Vec<u8>) -> io::Result<()>> ChunkWriter<S> {
    /// Hands pieces to `sink`, which waits while the other side is slow.
    pub fn new(sink: S) -> Self {
        Self { sink, piece: vec![RAW], zstd: None, waited: Duration::ZERO, pause: 0 }
    }

    /// Hands over what is left, and the end.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        (self.sink)(vec![END])
    }

    fn hand_over(&mut self, piece: Vec<u8>) -> io::Result<()> {
        let begun = Instant::now();
        (self.sink)(piece)?;
        self.waited = (self.waited * 3 + begun.elapsed()) / 4;
        Ok(())
    }

    /// The piece as a frame, if that is worth it.
    fn compressed(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.pause > 0 {
            self.pause -= 1;
            return Ok(None);
        }
        if self.waited < SLOW {
            return Ok(None);
        }
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Compressor::new(LEVEL)?),
        };
        let raw = &self.piece[1..];
        let mut frame = vec![0; 5 + zstd::zstd_safe::compress_bound(raw.len())];
        frame[0] = COMPRESSED;
        // At most `CHUNK`.
        frame[1..5].copy_from_slice(&(raw.len() as u32).to_le_bytes());
        let length = zstd.compress_to_buffer(raw, &mut frame[5..])?;
        if length + length / 8 >= raw.len() {
            self.pause = PAUSE;
            return Ok(None);
        }
        frame.truncate(5 + length);
        Ok(Some(frame))
    }
}

impl<S: FnMut(Vec<u8>) -> io::Result<()>> Write for ChunkWriter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == 1 {
            self.piece.reserve_exact(CHUNK);
        }
        let taken = bytes.len().min(CHUNK + 1 - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == CHUNK + 1 {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.len() == 1 {
            return Ok(());
        }
        let piece = match self.compressed()? {
            Some(frame) => {
                self.piece.truncate(1);
                frame
            }
            None => std::mem::replace(&mut self.piece, vec![RAW]),
        };
        self.hand_over(piece)
    }
}

/// Puts pieces together again. Any bytes may come: what isn't a stream in pieces is an error, and so is one without an end.
pub struct ChunkReader<S, B> {
    source: S,
    /// The piece being read, when it came as it is, and how much of it was.
    raw: Option<(B, usize)>,
    /// The piece being read, when it came compressed, and how much of it was.
    frame: (Vec<u8>, usize),
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    ended: bool,
}

impl<B: AsRef<[u8]>, S: FnMut() -> io::Result<Option<B>>> ChunkReader<S, B> {
    /// Asks `source` for piece after piece; it answers `None` when nothing more comes.
    pub fn new(source: S) -> Self {
        Self { source, raw: None, frame: (Vec::new(), 0), zstd: None, ended: false }
    }

    /// Waits for the end, which must come next.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn finish(mut self) -> io::Result<()> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(odd("it goes on behind its end")),
        }
    }

    /// What of the current piece wasn't read yet.
    fn rest(&self) -> &[u8] {
        match &self.raw {
            Some((piece, read)) => piece.as_ref().get(*read..).unwrap_or_default(),
            None => self.frame.0.get(self.frame.1..).unwrap_or_default(),
        }
    }

    fn next(&mut self) -> io::Result<()> {
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "it was cut off");
        let piece = (self.source)()?.ok_or_else(cut)?;
        let bytes = piece.as_ref();
        if bytes.len() > MAX_CHUNK {
            return Err(odd("a piece of it is too large"));
        }
        match bytes {
            [RAW, ..] => self.raw = Some((piece, 1)),
            [COMPRESSED, a, b, c, d, frame @ ..] => {
                let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
                if length > CHUNK {
                    return Err(odd("a piece of it is too large"));
                }
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new()?),
                };
                self.frame.0.resize(length, 0);
                let found = zstd.decompress_to_buffer(frame, &mut self.frame.0[..]);
                if !matches!(found, Ok(found) if found == length) {
                    return Err(odd("a compressed piece of it is damaged"));
                }
                (self.raw, self.frame.1) = (None, 0);
            }
            [END] => self.ended = true,
            _ => return Err(odd("a piece of it is of no known kind")),
        }
        Ok(())
    }
}

impl<B: AsRef<[u8]>, S: FnMut() -> io::Result<Option<B>>> Read for ChunkReader<S, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest().is_empty() && !self.ended && !buffer.is_empty() {
            self.next()?;
        }
        let rest = self.rest();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        match &mut self.raw {
            Some((_, done)) => *done += read,
            None => self.frame.1 += read,
        }
        Ok(read)
    }
}

fn odd(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[Vec<u8>]) -> io::Result<Vec<u8>> {
        let mut pieces = pieces.iter();
        let mut reader = ChunkReader::new(|| Ok(pieces.next()));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        reader.finish()?;
        Ok(bytes)
    }

    /// All pieces of a stream whose sink is so slow.
    fn pieces(bytes: &[u8], slow: Duration) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut writer = ChunkWriter::new(|piece| {
            pieces.push(piece);
            Ok(())
        });
        for part in bytes.chunks(100_000) {
            writer.waited = slow;
            writer.write_all(part).unwrap();
        }
        writer.finish().unwrap();
        pieces
    }

    #[test]
    fn what_goes_in_comes_out_compressed_only_where_that_pays() {
        let text = b"all work and no play ".repeat(60_000);
        let draw = |seed: &mut u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some((*seed >> 56) as u8)
        };
        let noise: Vec<u8> = (0..1_200_000).scan(7_u64, |seed, _| draw(seed)).collect();
        for (bytes, slow, kind) in [
            (&text, Duration::ZERO, RAW),
            (&text, Duration::from_secs(1), COMPRESSED),
            (&noise, Duration::from_secs(1), RAW),
        ] {
            let pieces = pieces(bytes, slow);
            assert!(pieces.iter().all(|piece| piece.len() <= MAX_CHUNK));
            assert_eq!(pieces[0][0], kind);
            assert_eq!(read(&pieces).unwrap(), *bytes);
        }
        assert_eq!(read(&pieces(b"", Duration::ZERO)).unwrap(), b"");
    }

    #[test]
    fn a_stream_that_was_cut_off_is_an_error() {
        let pieces = pieces(&[7; 600_000], Duration::from_secs(1));
        for length in 0..pieces.len() {
            assert_eq!(read(&pieces[..length]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
    }

    #[test]
    fn hostile_pieces_are_refused() {
        let frame = |length: u32, bytes: &[u8]| [&[COMPRESSED][..], &length.to_le_bytes(), bytes].concat();
        let zeros = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        let end = vec![END];
        for hostile in [
            vec![],
            vec![3],
            vec![END, 0],
            vec![COMPRESSED, 1],
            vec![RAW; MAX_CHUNK + 1],
            frame(CHUNK as u32 + 1, &zeros),
            frame(1 << 10, &zeros),
            frame(5, b"no frame"),
            frame(5, &zstd::bulk::compress(b"four", 1).unwrap()),
        ] {
            assert!(read(&[hostile.clone(), end.clone()]).is_err(), "{:?}", &hostile[..hostile.len().min(9)]);
        }
        assert_eq!(read(&[vec![RAW], end.clone()]).unwrap(), b"");
    }
}
