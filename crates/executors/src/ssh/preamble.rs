//! The first words from a host: what was asked for begins behind a mark, and whatever a shell's start-up files print comes
//! before it.
//!
//! ```text
//! Welcome to build-1!\n … NUL executr WORD REST NUL <the stream>
//! ```
//!
//! No command line can hold a NUL character; and what writes a mark takes it together from parts, so that a start-up file which
//! repeats the command by an `echo` that knows escapes prints none either.

/// How much may be printed before the mark.
pub(super) const MOST_NOISE: usize = 256 * 1024;

/// How long a mark may be.
const LONGEST: usize = 8 * 1024;

const START: &[u8] = b"\0executr ";

/// What stands between the two NUL characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// What it is about.
    pub(super) word: String,
    /// More of it.
    pub(super) rest: String,
}

/// How far one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Not yet all there.
    Nothing,
    /// The mark, and where the bytes behind it begin.
    Mark(Mark, usize),
    /// There won't be any.
    Noise,
}

/// Looks for a mark in all that has come so far.
pub(super) fn find(bytes: &[u8]) -> Found {
    let too_long = |length: usize, most: usize| if length > most { Found::Noise } else { Found::Nothing };
    let Some(start) = bytes.windows(START.len()).position(|window| window == START) else {
        return too_long(bytes.len(), MOST_NOISE);
    };
    let text = &bytes[start + START.len()..];
    let Some(length) = text.iter().position(|byte| *byte == 0) else { return too_long(text.len(), LONGEST) };
    let said = String::from_utf8_lossy(&text[..length]);
    let (word, rest) = said.split_once(' ').unwrap_or((&said, ""));
    let mark = Mark { word: word.to_owned(), rest: rest.to_owned() };
    Found::Mark(mark, start + START.len() + length + 1)
}

/// The last lines of what was printed instead.
pub(super) fn noise(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(2_000)..]);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join("; ").escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(word: &str, rest: &str) -> Mark {
        Mark { word: word.to_owned(), rest: rest.to_owned() }
    }

    #[test]
    fn a_mark_is_found_behind_any_noise_and_split_anywhere() {
        let bytes = b"Welcome!\n\0executrix\0\nlast login\0executr at /a b/c\0stream";
        let end = bytes.len() - b"stream".len();
        for length in 0..bytes.len() {
            let expected = if length < end { Found::Nothing } else { Found::Mark(mark("at", "/a b/c"), end) };
            assert_eq!(find(&bytes[..length]), expected, "{length}");
        }
        assert_eq!(find(b"\0executr missing\0"), Found::Mark(mark("missing", ""), 17));
    }

    #[test]
    fn noise_has_an_end() {
        assert_eq!(find(&vec![b'x'; MOST_NOISE]), Found::Nothing);
        assert_eq!(find(&vec![b'x'; MOST_NOISE + 1]), Found::Noise);
        let unending = [START, &vec![b'x'; LONGEST + 1]].concat();
        assert_eq!(find(&unending), Found::Noise);
        assert_eq!(noise(b"a\n\nb\x07\n"), "a; b\\u{7}");
    }
}
