//! What a directory looked like, as little as is needed to see what changed: some 80 bytes and its name for each thing in
//! it.
//!
//! What is in one directory stands together, in the order of the names, so that a walk compares directory with directory
//! and no path is ever put together for something that hasn't changed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executr_spec::Digest;
use rustix::fs::FileType;

use crate::manifest::{Kind, Manifest};
use crate::materialise::Placed;
use crate::stamp::Stamp;

/// What a directory and everything in it looked like at some time, and the digests of the files as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    names: Vec<u8>,
    known: Vec<Known>,
    /// What is in the root.
    top: Children,
}

/// What stands together in `known`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Children {
    start: u32,
    count: u32,
}

/// What something looked like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    name: u32,
    name_length: u8,
    /// It may have been changed since, within the same tick of the clock.
    pub(super) is_fresh: bool,
    /// Kind and permissions.
    pub(super) mode: u32,
    /// Of a directory, where what is in it stands: see [`Known::children`].
    pub(super) size: u64,
    pub(super) ctime: i64,
    pub(super) inode: u64,
    /// What stands for its extended attributes; 0 when it had none.
    pub(super) attributes: u64,
    /// Of a file's bytes or a link's target; zeros when it isn't known.
    pub(super) digest: [u8; 32],
}

pub(super) const UNKNOWN: [u8; 32] = [0; 32];

impl Known {
    /// What a file, directory or link looks like that was looked at when the clock said `looked`.
    pub(super) fn new(stamp: &Stamp, looked: i64) -> Self {
        Self {
            name: 0,
            name_length: 0,
            is_fresh: !stamp.had_rested(looked),
            mode: stamp.mode,
            size: stamp.size,
            ctime: stamp.ctime,
            inode: stamp.inode,
            attributes: 0,
            digest: UNKNOWN,
        }
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Whether something looks exactly so. Directories change with everything in them: only of others.
    pub(super) fn looks_like(&self, stamp: &Stamp) -> bool {
        (self.ctime, self.size, self.inode, self.mode) == (stamp.ctime, stamp.size, stamp.inode, stamp.mode)
    }

    pub(super) fn children(&self) -> Children {
        Children { start: (self.size >> 32) as u32, count: self.size as u32 }
    }
}

/// What is in one directory, while the whole is being put together. The `size` of a directory in it is the number of its
/// own list.
#[derive(Debug, Default)]
pub(super) struct DirectoryList {
    names: Vec<u8>,
    pub(super) known: Vec<Known>,
}

impl DirectoryList {
    /// Adds what comes next in the order of the names.
    pub(super) fn push(&mut self, name: &OsStr, known: Known) {
        // A directory has at most two million names of 255 bytes, and lists are bounded together.
        let start = self.names.len() as u32;
        self.names.extend_from_slice(name.as_bytes());
        self.known.push(Known { name: start, name_length: name.len() as u8, ..known });
    }
}

impl Baseline {
    /// What a tree looked like when it had just been put somewhere.
    #[must_use]
    pub fn of_placed(manifest: &Manifest, placed: &Placed) -> Self {
        let mut lists = vec![DirectoryList::default()];
        // The directories above, each with its list.
        let mut open: Vec<(&Path, usize)> = vec![(Path::new(""), 0)];
        for (entry, stamp) in manifest.entries().iter().zip(&placed.stamps) {
            let parent = entry.path.parent().unwrap_or(Path::new(""));
            while open.last().is_some_and(|(path, _)| *path != parent) {
                open.pop();
            }
            let (Some((_, list)), Some(name)) = (open.last(), entry.path.file_name()) else { continue };
            let list = *list;
            let known = match (&entry.kind, stamp) {
                (Kind::Directory { mode }, _) => {
                    open.push((&entry.path, lists.len()));
                    let size = lists.len() as u64;
                    lists.push(DirectoryList::default());
                    let mode = FileType::Directory.as_raw_mode() | mode;
                    Known::new(&Stamp { ctime: 0, mtime: 0, size, inode: 0, mode }, placed.at)
                }
                (Kind::File(file), Some(stamp)) => Known { digest: file.digest.0, ..Known::new(stamp, placed.at) },
                (Kind::Symlink { target }, Some(stamp)) => {
                    Known { digest: Digest::of(target.as_os_str().as_bytes()).0, ..Known::new(stamp, placed.at) }
                }
                _ => continue,
            };
            lists[list].push(name, known);
        }
        Self::assemble(lists)
    }

    /// Puts the lists of all directories together; the root's is the first.
    pub(super) fn assemble(lists: Vec<DirectoryList>) -> Self {
        let mut places = Vec::with_capacity(lists.len());
        let mut start = 0;
        for list in &lists {
            let count = list.known.len() as u32;
            places.push(Children { start, count });
            start += count;
        }
        let mut whole = Self {
            names: Vec::with_capacity(lists.iter().map(|list| list.names.len()).sum()),
            known: Vec::with_capacity(start as usize),
            top: places.first().copied().unwrap_or_default(),
        };
        for list in lists {
            let shift = whole.names.len() as u32;
            whole.names.extend_from_slice(&list.names);
            whole.known.extend(list.known.into_iter().map(|mut known| {
                known.name += shift;
                if known.is_directory() {
                    let Children { start, count } = places.get(known.size as usize).copied().unwrap_or_default();
                    known.size = u64::from(start) << 32 | u64::from(count);
                }
                known
            }));
        }
        whole
    }

    /// What was in the root.
    pub(super) fn top(&self) -> Children {
        self.top
    }

    pub(super) fn list(&self, children: Children) -> &[Known] {
        self.known
            .get(children.start as usize..)
            .and_then(|rest| rest.get(..children.count as usize))
            .unwrap_or_default()
    }

    pub(super) fn name(&self, known: &Known) -> &OsStr {
        OsStr::from_bytes(&self.names[known.name as usize..][..usize::from(known.name_length)])
    }

    /// How many files, directories and links it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether the directory was empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Bytes of memory that this takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.names.capacity() + self.known.capacity() * size_of::<Known>()
    }

    /// Everything and what it looked like, in the order of a manifest.
    #[cfg(feature = "stream")]
    pub(crate) fn stamps(&self) -> impl Iterator<Item = (PathBuf, Stamp)> {
        self.below(Path::new(""), self.top).into_iter().map(|(path, known)| {
            let Known { ctime, size, inode, mode, .. } = known;
            // Who compares with it does so without the time of writing: that of change tells more.
            (path, Stamp { ctime, mtime: ctime, size, inode, mode })
        })
    }

    /// Everything below something, in the order of a manifest.
    pub(super) fn below(&self, path: &Path, children: Children) -> Vec<(PathBuf, Known)> {
        let mut found = Vec::new();
        let mut open = vec![(path.to_owned(), self.list(children).iter())];
        while let Some((above, list)) = open.last_mut() {
            let Some(known) = list.next() else {
                open.pop();
                continue;
            };
            let path = above.join(self.name(known));
            found.push((path.clone(), *known));
            if known.is_directory() {
                open.push((path, self.list(known.children()).iter()));
            }
        }
        found
    }
}
