//! Lines out of pieces.

/// The longest line that is waited for, in bytes; a longer one is shown in pieces.
const LONGEST: usize = 64 * 1024;

/// Bytes of one stream whose line hasn't ended yet.
#[derive(Debug, Default)]
pub(crate) struct PartialLines {
    rest: Vec<u8>,
}

impl PartialLines {
    /// Takes bytes and hands on each line that is whole, without its end (`\n` or `\r\n`).
    pub(crate) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(Vec<u8>)) {
        let mut left = bytes;
        while let Some(end) = left.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&left[..end]);
            if self.rest.last() == Some(&b'\r') {
                self.rest.pop();
            }
            line(std::mem::take(&mut self.rest));
            left = &left[end + 1..];
        }
        self.rest.extend_from_slice(left);
        while self.rest.len() > LONGEST {
            let tail = self.rest.split_off(LONGEST);
            line(std::mem::replace(&mut self.rest, tail));
        }
    }

    /// What is there of a line that will not be ended.
    pub(crate) fn flush(&mut self) -> Option<Vec<u8>> {
        (!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let text = b"one\r\ntwo\n\nthree";
        for cut in 0..=text.len() {
            let mut partial = PartialLines::default();
            let mut lines = Vec::new();
            partial.push(&text[..cut], |line| lines.push(line));
            partial.push(&text[cut..], |line| lines.push(line));
            lines.extend(partial.flush());
            assert_eq!(lines, [&b"one"[..], b"two", b"", b"three"], "{cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_shown_in_pieces() {
        let mut partial = PartialLines::default();
        let mut lengths = Vec::new();
        partial.push(&vec![b'x'; 2 * LONGEST + 5], |line| lengths.push(line.len()));
        assert_eq!(lengths, [LONGEST, LONGEST]);
        assert_eq!(partial.flush().map(|line| line.len()), Some(5));
    }
}
