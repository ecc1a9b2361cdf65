//! Which names entries may have.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::refusal::Refusal;

/// A name of a file is no longer, in bytes.
const LONGEST_NAME: usize = 255;
/// A path is no longer, in bytes.
const LONGEST_PATH: usize = 4095;

const WHITEOUT: &[u8] = b".wh.";

/// What an entry's last name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Itself.
    Plain,
    /// That layers below have nothing of this name here.
    Whiteout(&'a OsStr),
    /// That layers below have nothing here at all.
    Opaque,
    /// Something of an old file system's own.
    Ignored,
}

/// The path of an entry below the layer's root; empty for the root itself.
pub(super) fn path_of(written: &[u8]) -> Result<PathBuf, Refusal> {
    if written.starts_with(b"/") {
        return Err(Refusal::Outside);
    }
    if written.contains(&0) {
        return Err(Refusal::Name("one with a zero byte"));
    }
    if written.is_empty() {
        return Err(Refusal::Name("empty"));
    }
    if written.len() > LONGEST_PATH {
        return Err(Refusal::Name("longer than 4095 bytes"));
    }
    let mut path = PathBuf::new();
    for part in written.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Refusal::Outside),
            part if part.len() > LONGEST_NAME => return Err(Refusal::Name("longer than 255 bytes")),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// What the last name of a path says.
pub(super) fn meaning(path: &Path) -> Result<Meaning<'_>, Refusal> {
    let Some(name) = path.file_name() else { return Ok(Meaning::Plain) };
    let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) else { return Ok(Meaning::Plain) };
    match hidden {
        b".wh..opq" => Ok(Meaning::Opaque),
        _ if hidden.starts_with(WHITEOUT) => Ok(Meaning::Ignored),
        b"" | b"." | b".." => Err(Refusal::Outside),
        _ => Ok(Meaning::Whiteout(OsStr::from_bytes(hidden))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_root() {
        for (written, path) in [("./", ""), ("./a//b/./c", "a/b/c"), ("a/", "a"), ("..a/...", "..a/...")] {
            assert_eq!(path_of(written.as_bytes()).unwrap(), Path::new(path), "{written}");
        }
        assert_eq!(path_of(b"odd \xff\n name").unwrap().as_os_str().as_bytes(), b"odd \xff\n name");
        for written in ["/etc/passwd", "../a", "a/../../b", "a/..", ".."] {
            assert!(matches!(path_of(written.as_bytes()), Err(Refusal::Outside)), "{written}");
        }
        for written in [vec![], b"a\0b".to_vec(), vec![b'a'; 256], b"ab/".repeat(2000)] {
            assert!(matches!(path_of(&written), Err(Refusal::Name(_))));
        }
    }

    #[test]
    fn whiteouts_name_what_they_hide_and_nothing_else() {
        let of = |path: &'static str| meaning(Path::new(path));
        assert_eq!(of("a/b").unwrap(), Meaning::Plain);
        assert_eq!(of("a/.wh.b").unwrap(), Meaning::Whiteout(OsStr::new("b")));
        assert_eq!(of("a/.wh..wh..opq").unwrap(), Meaning::Opaque);
        assert_eq!(of(".wh..wh.aufs").unwrap(), Meaning::Ignored);
        for path in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(of(path).is_err(), "{path}");
        }
    }
}
