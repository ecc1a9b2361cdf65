//! Patterns for paths, as people write them to say which files they mean.
//!
//! ```text
//! *.rs          of that name, in any directory: a pattern without a slash
//! src/*.rs      in src, not in directories below it
//! src/**/*.rs   in src and in all directories below it
//! target        all that is in it, too: who names a directory means what is in it
//! ? [a-z] [!a]  one character; \* is a star
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most bytes of a pattern.
const LONGEST: usize = 1_000;

/// A pattern for paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Glob(String);

impl Glob {
    /// Whether the pattern means this path, or a directory it is in. The path has no `.` or `..`, and doesn't begin with `/`.
    #[must_use]
    pub fn covers(&self, path: &[u8]) -> bool {
        let anchored = self.0.trim_end_matches('/').contains('/');
        let pattern: Vec<&[u8]> =
            self.0.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        let starts = if anchored { 1 } else { path.len() };
        (0..starts).any(|start| begins(&pattern, &path[start..]))
    }
}

/// Whether the first names of a path, any number of them but none, are what the pattern says.
fn begins(pattern: &[&[u8]], path: &[&[u8]]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        // Nothing is left to ask for: what is below is in it.
        (None, _) => true,
        (Some((&b"**", [])), rest) => rest.is_some(),
        (Some((&b"**", more)), rest) => begins(more, path) || rest.is_some_and(|(_, below)| begins(pattern, below)),
        (Some((part, more)), Some((name, below))) => is_name(part, name) && begins(more, below),
        (Some(_), None) => false,
    }
}

/// Whether a name is as a part of a pattern says.
fn is_name(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on when it doesn't fit: behind the last star, one character further.
    let (mut at, mut read, mut again) = (0, 0, None);
    while read < name.len() {
        match one(&pattern[at..], name[read]) {
            One::Star => {
                again = Some((at + 1, read));
                at += 1;
            }
            One::Fits(length) => (at, read) = (at + length, read + 1),
            One::No => match again {
                Some((behind, from)) => {
                    (at, read) = (behind, from + 1);
                    again = Some((behind, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// What the next of a pattern says of a byte.
enum One {
    /// Any number of them.
    Star,
    /// This one; so much of the pattern says it.
    Fits(usize),
    No,
}

fn one(pattern: &[u8], byte: u8) -> One {
    let fits = |fits: bool, length| if fits { One::Fits(length) } else { One::No };
    match pattern {
        [] => One::No,
        [b'*', ..] => One::Star,
        [b'?', ..] => One::Fits(1),
        [b'\\', escaped, ..] => fits(*escaped == byte, 2),
        [b'[', rest @ ..] => match set(rest) {
            Some((is_not, among, length)) => fits(is_in(among, byte) != is_not, length + 1),
            None => fits(byte == b'[', 1),
        },
        [other, ..] => fits(*other == byte, 1),
    }
}

/// What stands between brackets: whether it says which not, what it says, and how long all of it is.
fn set(rest: &[u8]) -> Option<(bool, &[u8], usize)> {
    let is_not = matches!(rest.first(), Some(b'!' | b'^'));
    let start = usize::from(is_not);
    // A bracket that comes first is one of them.
    let end = rest.iter().enumerate().skip(start + 1).find(|(_, byte)| **byte == b']')?.0;
    Some((is_not, &rest[start..end], end + 1))
}

fn is_in(set: &[u8], byte: u8) -> bool {
    let mut rest = set;
    loop {
        match rest {
            [from, b'-', to, more @ ..] => {
                if (*from..=*to).contains(&byte) {
                    return true;
                }
                rest = more;
            }
            [first, more @ ..] => {
                if *first == byte {
                    return true;
                }
                rest = more;
            }
            [] => return false,
        }
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim_matches('/').is_empty() {
            return Err("is empty; `**` means everything".to_owned());
        }
        if text.len() > LONGEST {
            return Err(format!("has {} bytes; a pattern has at most {LONGEST}", text.len()));
        }
        if text.contains('\0') {
            return Err("holds a NUL character".to_owned());
        }
        if text.split('/').any(|part| part == "..") {
            return Err(format!("`{text}` leads out of the directory; write a pattern for paths in it"));
        }
        Ok(Self(text.strip_prefix("./").unwrap_or(text).to_owned()))
    }
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a path is chosen: by one of `include`, or by nothing being said there, and by none of `exclude`.
#[must_use]
pub fn is_chosen(include: &[Glob], exclude: &[Glob], path: &[u8]) -> bool {
    let covered = |globs: &[Glob]| globs.iter().any(|glob| glob.covers(path));
    (include.is_empty() || covered(include)) && !covered(exclude)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, path: &str) -> bool {
        pattern.parse::<Glob>().expect(pattern).covers(path.as_bytes())
    }

    #[test]
    fn a_pattern_means_what_it_says() {
        for (pattern, yes, no) in [
            ("*.rs", &["a.rs", "src/a.rs", "a.rs/b"][..], &["a.rsx", "rs"][..]),
            ("src/*.rs", &["src/a.rs"], &["src/deep/a.rs", "a.rs", "x/src/a.rs"]),
            ("src/**/*.rs", &["src/a.rs", "src/deep/er/a.rs"], &["a.rs", "src/a.c"]),
            ("target", &["target", "target/a", "x/target/b/c"], &["targets", "a/targe"]),
            ("/target", &["target", "target/a"], &["x/target"]),
            ("target/", &["target/a", "x/target/a"], &["targets"]),
            ("**", &["a", "a/b"], &[]),
            ("docs/**", &["docs/a", "docs/a/b"], &["docs", "a/docs/b"]),
            ("**/docs", &["docs", "a/docs", "a/docs/b"], &["a"]),
            ("a?c", &["abc", "x/a.c"], &["ac", "abbc"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "-x"]),
            ("[!a-c]x", &["dx"], &["ax"]),
            ("[]-]x", &["]x", "-x"], &["ax"]),
            ("\\*", &["*"], &["a"]),
            ("*a*b*c", &["abc", "xaxbxbxc"], &["acb", "abcx"]),
            ("[", &["["], &["a"]),
            ("./src/a", &["src/a"], &["a"]),
        ] {
            for path in yes {
                assert!(covers(pattern, path), "{pattern} means {path}");
            }
            for path in no {
                assert!(!covers(pattern, path), "{pattern} doesn't mean {path}");
            }
        }
    }

    #[test]
    fn what_is_excluded_is_not_chosen() {
        let globs = |patterns: &[&str]| patterns.iter().map(|text| text.parse().expect("one")).collect::<Vec<Glob>>();
        assert!(is_chosen(&[], &[], b"a"));
        assert!(is_chosen(&globs(&["*.rs"]), &globs(&["old"]), b"src/a.rs"));
        assert!(!is_chosen(&globs(&["*.rs"]), &globs(&["old"]), b"old/a.rs"));
        assert!(!is_chosen(&globs(&["*.rs"]), &[], b"a.c"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "/", "../a", "a/../b", "a\0"] {
            assert!(text.parse::<Glob>().is_err(), "{text:?}");
        }
    }
}
