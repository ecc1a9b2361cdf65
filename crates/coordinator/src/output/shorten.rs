//! The original's rule for output that is too long: the first 500 lines, a marker that states total bytes and lines, then
//! as many last lines as fit.

use std::collections::VecDeque;

/// So many first lines are kept.
const FIRST_LINES: usize = 500;

/// Takes one stream's bytes piece by piece and keeps what will be shown, at most twice `most` bytes.
#[derive(Debug)]
pub(super) struct Shortener {
    most: usize,
    bytes: u64,
    newlines: u64,
    ends_in_line: bool,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// All of it, so far.
    Whole(Vec<u8>),
    /// The first lines, and the last bytes after them.
    Ends { head: Vec<u8>, tail: VecDeque<u8> },
}

impl Shortener {
    /// Shows at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { most, bytes: 0, newlines: 0, ends_in_line: false, kept: Kept::Whole(Vec::new()) }
    }

    /// The next bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.bytes += bytes.len() as u64;
        self.newlines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.ends_in_line = *last != b'\n';
        self.keep(bytes);
    }

    /// Here bytes are missing, nobody knows of which stream.
    pub(super) fn gap(&mut self, skipped: u64) {
        self.keep(format!("\n[... {skipped} bytes of output were not kept ...]\n").as_bytes());
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Kept::Whole(whole) = &mut self.kept {
            whole.extend_from_slice(bytes);
            if whole.len() <= self.most {
                return;
            }
            let mut head = std::mem::take(whole);
            let rest = head.split_off(head_end(&head, self.most / 2));
            self.kept = Kept::Ends { head, tail: VecDeque::new() };
            return self.keep_tail(&rest);
        }
        self.keep_tail(bytes);
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        let Kept::Ends { head, tail } = &mut self.kept else { return };
        let room = self.most.saturating_sub(head.len());
        let bytes = &bytes[bytes.len().saturating_sub(room)..];
        tail.drain(..(tail.len() + bytes.len()).saturating_sub(room));
        tail.extend(bytes);
    }

    /// What is shown. Bytes that are no UTF-8 become U+FFFD.
    pub(super) fn finish(self) -> String {
        let (mut head, mut tail) = match self.kept {
            Kept::Whole(whole) => return text(whole),
            Kept::Ends { head, tail } => (head, tail),
        };
        let lines = self.newlines + u64::from(self.ends_in_line);
        if head.last().is_some_and(|last| *last != b'\n') {
            head.push(b'\n');
        }
        head.extend_from_slice(format!("[... shortened: {} bytes, {lines} lines in all ...]\n", self.bytes).as_bytes());
        let tail = tail.make_contiguous();
        let from = tail.len().saturating_sub(self.most.saturating_sub(head.len()));
        // Whole lines only, unless one line alone is too long. The tail never starts where the head ended, so its first
        // line is a part of one unless a newline happens to stand before the cut.
        let whole_line = from > 0 && tail[from - 1] == b'\n';
        let shown = &tail[from..];
        let next_line = shown.iter().position(|byte| *byte == b'\n').map_or(shown.len(), |at| at + 1);
        let skip = match (whole_line, next_line == shown.len()) {
            (true, _) => 0,
            (false, false) => next_line,
            // One line, with or without its end: cut where a character begins.
            (false, true) => shown.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count(),
        };
        head.extend_from_slice(&shown[skip..]);
        text(head)
    }
}

/// Where the first lines end; lines that are too long are cut after `most` bytes.
fn head_end(bytes: &[u8], most: usize) -> usize {
    let within = &bytes[..bytes.len().min(most)];
    let mut newlines = within.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    newlines.nth(FIRST_LINES - 1).map_or(within.len(), |(at, _)| at + 1)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorten(most: usize, parts: &[&[u8]]) -> String {
        let mut shortener = Shortener::new(most);
        for part in parts {
            shortener.push(part);
        }
        shortener.finish()
    }

    #[test]
    fn what_fits_is_shown_as_it_is() {
        assert_eq!(shorten(10, &[b"hello\n", b"yes\n"]), "hello\nyes\n");
        assert_eq!(shorten(10, &[]), "");
        assert_eq!(shorten(10, &[b"a\xff\n"]), "a\u{fffd}\n");
    }

    #[test]
    fn what_does_not_fit_keeps_its_first_500_and_last_lines_whatever_the_pieces() {
        let all: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        let most = 20_000;
        let at_once = shorten(most, &[all.as_bytes()]);
        for piece in [1, 7, 4_096, 30_000] {
            assert_eq!(shorten(most, &all.as_bytes().chunks(piece).collect::<Vec<_>>()), at_once, "{piece}");
        }
        assert!(at_once.len() <= most && at_once.len() > most - 20, "{}", at_once.len());
        let lines: Vec<&str> = at_once.lines().collect();
        assert_eq!(lines[0], "line 0");
        assert_eq!(lines[499], "line 499");
        assert_eq!(lines[500], format!("[... shortened: {} bytes, 100000 lines in all ...]", all.len()));
        let shown: u32 = lines[501].strip_prefix("line ").expect("a whole line").parse().expect("a number");
        assert_eq!(lines.len() as u32 - 501, 100_000 - shown);
        assert_eq!(lines.last(), Some(&"line 99999"));
    }

    #[test]
    fn one_endless_line_keeps_both_its_ends() {
        let shown = shorten(1_000, &[&[b'a'; 5_000], &[b'b'; 5_000]]);
        assert!(shown.starts_with(&"a".repeat(500)));
        assert!(shown.contains("\n[... shortened: 10000 bytes, 1 lines in all ...]\nbbb"), "{shown}");
        assert_eq!(shown.len(), 1_000);
    }

    #[test]
    fn a_huge_last_line_is_cut_where_a_character_begins() {
        for ending in ["", "\n"] {
            for ahead in ["", "a", "ab", "abc"] {
                let line = format!("first\n{ahead}{}{ending}", "\u{20ac}".repeat(5_000));
                let shown = shorten(1_000, &[line.as_bytes()]);
                assert!(shown.len() <= 1_000 + 3 && shown.len() > 950, "{}", shown.len());
                let (head, tail) = shown.split_once(" in all ...]\n").expect("a marker");
                assert!(head.starts_with("first\n"), "{head}");
                let tail = tail.strip_suffix(ending).expect("the line's end");
                assert!(tail.len() > 300 && tail.chars().all(|character| character == '\u{20ac}'), "{tail}");
            }
        }
    }

    #[test]
    fn a_gap_is_shown_where_it_is() {
        let mut shortener = Shortener::new(1_000);
        shortener.push(b"before");
        shortener.gap(17);
        shortener.push(b"after\n");
        assert_eq!(shortener.finish(), "before\n[... 17 bytes of output were not kept ...]\nafter\n");
    }
}
