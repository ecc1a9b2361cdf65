//! A manifest as what differs from another one: what came or changed as a manifest of its own, and the paths of what went.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::changes::{News, diff};
use crate::manifest::{Entry, Kind, MAX_ENTRIES, MAX_MANIFEST, Manifest, ManifestError};
use crate::stream::{StreamError, receive_manifest, send_manifest};

/// Sends what makes `after` of `before`: a manifest of what came or changed, with the directories it is in, and then the
/// paths of what went, each ended by a NUL, their length in eight bytes before them.
///
/// # Errors
/// [`StreamError::Cut`].
pub fn delta(before: &Manifest, after: &Manifest, to: &mut impl Write) -> Result<(), StreamError> {
    let changes = diff(before, after);
    let mut gone = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut changed = changes.all().iter().filter(|change| change.news != News::Deleted).peekable();
    for change in changes.all().iter().filter(|change| change.news == News::Deleted) {
        gone.extend_from_slice(change.path.as_os_str().as_bytes());
        gone.push(0);
    }
    // Directories on the way to something that is to come.
    let mut above: Vec<&Entry> = Vec::new();
    for entry in after.entries() {
        while above.last().is_some_and(|last| !entry.path.starts_with(&last.path)) {
            above.pop();
        }
        let is_new = changed.next_if(|change| change.path == entry.path).is_some();
        if is_new {
            entries.extend(above.drain(..).cloned());
            entries.push(entry.clone());
        } else if matches!(entry.kind, Kind::Directory { .. }) {
            above.push(entry);
        }
    }
    send_manifest(&Manifest::outline(entries)?, to)?;
    let mut send = || {
        to.write_all(&(gone.len() as u64).to_le_bytes())?;
        to.write_all(&gone)
    };
    send().map_err(StreamError::Cut)
}

/// Takes what [`delta`] sends, and makes of `before` what came out there.
///
/// # Errors
/// [`StreamError`] when it isn't a delta, or not one of this tree.
pub fn apply_delta(before: &Manifest, from: &mut impl Read) -> Result<Manifest, StreamError> {
    let came = receive_manifest(from)?;
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(StreamError::Cut)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_MANIFEST as u64 {
        return Err(ManifestError::TooLarge { most: MAX_MANIFEST as u64, what: "bytes of paths" }.into());
    }
    let mut gone = Vec::new();
    // Grows with what comes, not with what is said.
    from.take(length).read_to_end(&mut gone).map_err(StreamError::Cut)?;
    if gone.len() as u64 != length {
        return Err(StreamError::Cut(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let gone: std::collections::HashSet<&Path> = gone
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| Path::new(OsStr::from_bytes(path)))
        .collect();
    let stays = |entry: &&Entry| !gone.contains(entry.path.as_path()) && came.get(&entry.path).is_none();
    let mut entries: Vec<Entry> = before.entries().iter().filter(stays).cloned().collect();
    entries.extend(came.entries().iter().cloned());
    if entries.len() > MAX_ENTRIES {
        return Err(ManifestError::TooLarge { most: MAX_ENTRIES as u64, what: "entries" }.into());
    }
    entries.sort_by(|one, other| one.path.components().cmp(other.path.components()));
    Ok(Manifest::outline(entries)?)
}
