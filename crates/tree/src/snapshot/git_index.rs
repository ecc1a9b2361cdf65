//! The names of the tracked files: from git's index, in the versions 2 to 4 of its format (gitformat-index(5)).
//!
//! Only names are read. An index that stands in two files or leaves out directories is git's own to read.

use std::io;
use std::path::Path;
use std::process::Command;

/// Tracked paths below a repository's top, in the order of their bytes.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    paths: Vec<Box<[u8]>>,
}

impl Tracked {
    /// Reads the index in `git_directory` of the repository whose worktree is at `top`, and whose configuration is in `common`.
    pub(super) fn read(top: &Path, git_directory: &Path, common: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(git_directory.join("index")) {
            Ok(bytes) => bytes,
            // Nothing was ever added.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let paths = match parse(&bytes, hash_length(common)) {
            Some(paths) => paths,
            None => ask_git(top)?,
        };
        Ok(Self { paths })
    }

    /// Those below a directory, whose path ends with `/` or is empty.
    pub(super) fn below(&self, directory: &[u8]) -> &[Box<[u8]>] {
        let start = self.paths.partition_point(|path| **path < *directory);
        let rest = &self.paths[start..];
        &rest[..rest.partition_point(|path| path.starts_with(directory))]
    }
}

/// Bytes of an object's name in this repository.
fn hash_length(common: &Path) -> usize {
    let config = std::fs::read_to_string(common.join("config")).unwrap_or_default().to_lowercase();
    let sha256 = config.lines().any(|line| {
        line.split_once('=').is_some_and(|(name, value)| name.trim() == "objectformat" && value.trim() == "sha256")
    });
    if sha256 { 32 } else { 20 }
}

/// `None` when the index isn't one that can be read here.
fn parse(bytes: &[u8], hash: usize) -> Option<Vec<Box<[u8]>>> {
    const SPARSE_DIRECTORY: u32 = 0o040_000;
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let version = number(4)?;
    if bytes.get(..4)? != b"DIRC" || !(2..=4).contains(&version) {
        return None;
    }
    let count = number(8)? as usize;
    let mut paths: Vec<Box<[u8]>> = Vec::with_capacity(count.min(bytes.len() / 62));
    let mut at = 12;
    for _ in 0..count {
        let start = at;
        let mode = number(start + 24)?;
        if mode & 0o170_000 == SPARSE_DIRECTORY {
            return None;
        }
        let flags = *bytes.get(start + 40 + hash)?;
        at = start + 42 + hash + if version >= 3 && flags & 0x40 != 0 { 2 } else { 0 };
        let mut path = Vec::new();
        if version == 4 {
            let cut = offset(bytes, &mut at)?;
            let last = paths.last().map_or(&[][..], |last| &**last);
            path.extend_from_slice(last.get(..last.len().checked_sub(cut)?)?);
        }
        let rest = bytes.get(at..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        path.extend_from_slice(&rest[..end]);
        at += end + 1;
        if version < 4 {
            at = start + (at - start).next_multiple_of(8);
        }
        if paths.last().is_none_or(|last| **last < *path) {
            paths.push(path.into());
        } else if paths.last().is_some_and(|last| **last > *path) {
            return None;
        }
    }
    // Extensions, up to the digest at the end.
    while at + 8 + hash <= bytes.len() {
        if bytes.get(at..at + 4)? == b"link" {
            return None;
        }
        at = at.checked_add(8)?.checked_add(number(at + 4)? as usize)?;
    }
    Some(paths)
}

/// A number as version 4 writes how much of the last path goes.
fn offset(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value = value.checked_shl(7)?.checked_add(usize::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        value = value.checked_add(1)?;
    }
}

fn ask_git(top: &Path) -> io::Result<Vec<Box<[u8]>>> {
    let output = Command::new("git").arg("-C").arg(top).args(["ls-files", "-z", "--cached"]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let mut paths: Vec<Box<[u8]>> =
        output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(Into::into).collect();
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index of version 2 as git would write it, but for times and names of objects.
    fn index(paths: &[&str], extension: &[u8]) -> Vec<u8> {
        let mut bytes = b"DIRC\0\0\0\x02".to_vec();
        bytes.extend((paths.len() as u32).to_be_bytes());
        for path in paths {
            let start = bytes.len();
            bytes.extend([0; 24]);
            bytes.extend(0o100_644_u32.to_be_bytes());
            bytes.extend([0; 12 + 20]);
            bytes.extend((path.len() as u16).to_be_bytes());
            bytes.extend(path.as_bytes());
            let length = bytes.len() - start;
            bytes.resize(start + (length + 1).next_multiple_of(8), 0);
        }
        bytes.extend(extension);
        bytes.extend([7; 20]);
        bytes
    }

    #[test]
    fn names_are_read_and_found_by_their_directory() {
        let tracked = Tracked { paths: parse(&index(&["a", "b-c", "b/c", "b/d/e", "b0"], b""), 20).unwrap() };
        let below = |directory: &str| tracked.below(directory.as_bytes()).len();
        assert_eq!((below(""), below("b/"), below("b/d/"), below("c/")), (5, 2, 1, 0));
    }

    #[test]
    fn what_is_git_s_own_to_read_is_left_to_it() {
        assert!(parse(&index(&["a"], b"link\0\0\0\0"), 20).is_none());
        assert!(parse(&index(&["a"], b"TREE\0\0\0\0"), 20).is_some());
        let whole = index(&["a", "b"], b"");
        for length in 0..140 {
            // Cut off anywhere it is no index, or one without its extensions; it is never a panic.
            let _ = parse(&whole[..length.min(whole.len())], 20);
        }
        assert!(parse(b"DIRC\0\0\0\x09\0\0\0\0", 20).is_none());
    }
}
