//! Comparing a directory with what it once looked like.
//!
//! One walk, shared out over the processors, looks at everything and opens nothing: what has the same time of change,
//! length, inode and mode is the same. Only then are those read that look different and may yet be the same, again by all
//! processors.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use executr_spec::{Digest, Hasher};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use thiserror::Error;

use super::baseline::{Baseline, Children, DirectoryList, Known, UNKNOWN};
use super::listing::Listing;
use super::{Change, Changes, News, attributes};
use crate::manifest::MAX_ENTRIES;
use crate::stamp::{self, Stamp};
use crate::{beneath, parallel};

/// Why a directory can't be looked through.
#[derive(Debug, Error)]
pub enum LookError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; check that it is there and may be read", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is too much.
    #[error("there are more than {most} files and directories; remove some")]
    TooMany {
        /// The limit.
        most: usize,
    },
}

/// What a look found.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// What is different.
    pub changes: Changes,
    /// What to compare with the next time.
    pub baseline: Baseline,
}

impl Baseline {
    /// What a directory looks like now. Nothing is read: whether a file that is written later has other bytes than before
    /// won't be known, and it counts as modified.
    ///
    /// # Errors
    /// [`LookError`].
    pub fn record(directory: &Path) -> Result<Self, LookError> {
        let root = beneath::open_root(directory).map_err(failed("open", directory))?;
        Self::record_at(root, directory)
    }

    /// As [`record`](Self::record), in a directory that is open; `path` is what people call it.
    pub(crate) fn record_at(root: OwnedFd, path: &Path) -> Result<Self, LookError> {
        Ok(Look::new(&Self::default(), root, path, Depth::Names).run()?.baseline)
    }

    /// What has changed in a directory since. Of the files only those are read that look different, are as long as they
    /// were, and whose bytes were known.
    ///
    /// # Errors
    /// [`LookError`].
    pub fn compare(&self, directory: &Path) -> Result<Changes, LookError> {
        let root = beneath::open_root(directory).map_err(failed("open", directory))?;
        Ok(Look::new(self, root, directory, Depth::Compare).run()?.changes)
    }

    /// As [`compare`](Self::compare), and what to compare with the next time. What is new is read too, so that it is known
    /// the next time whether it has other bytes.
    ///
    /// # Errors
    /// [`LookError`].
    pub fn advance(&self, directory: &Path) -> Result<Looked, LookError> {
        let root = beneath::open_root(directory).map_err(failed("open", directory))?;
        Look::new(self, root, directory, Depth::Advance).run()
    }
}

/// How much is to be found out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// What is there.
    Names,
    /// What is different.
    Compare,
    /// Both, and digests.
    Advance,
}

struct Look<'a> {
    before: &'a Baseline,
    root: OwnedFd,
    path: &'a Path,
    depth: Depth,
    /// What the clock said at the beginning.
    looked: i64,
    seen: AtomicUsize,
    lists: AtomicUsize,
}

/// A directory to be looked at.
struct Task {
    path: PathBuf,
    /// Which list describes it.
    list: usize,
    /// What was in it.
    before: Option<Children>,
    /// Of all but the root, whose own looks nobody knows.
    itself: Option<Itself>,
}

/// What a directory itself looks like.
struct Itself {
    before: Option<Known>,
    ctime: i64,
    place: Place,
    /// Its own news are told already.
    is_told: bool,
}

/// Where something is noted: in which list, and where in it.
type Place = (usize, usize);

/// What one thread has found.
#[derive(Default)]
struct Finds {
    listing: Listing,
    changes: Vec<Change>,
    lists: Vec<(usize, DirectoryList)>,
    candidates: Vec<Candidate>,
    /// What stands for the attributes of directories.
    attributes: Vec<(Place, u64)>,
}

/// A file that must be read.
struct Candidate {
    path: PathBuf,
    stamp: Stamp,
    before: Option<Known>,
    /// Where what it looks like now is noted.
    place: Place,
    /// It is known to be different: only what it is now is to be found out.
    is_told: bool,
}

/// What reading a file told.
struct Content {
    digest: [u8; 32],
    attributes: u64,
}

impl<'a> Look<'a> {
    fn new(before: &'a Baseline, root: OwnedFd, path: &'a Path, depth: Depth) -> Self {
        let (seen, lists) = (AtomicUsize::new(0), AtomicUsize::new(1));
        Self { before, root, path, depth, looked: stamp::now(), seen, lists }
    }

    fn run(self) -> Result<Looked, LookError> {
        let first = Task { path: PathBuf::new(), list: 0, before: Some(self.before.top()), itself: None };
        let look = |finds: &mut Finds, task: Task, more: &mut Vec<Task>| self.directory(finds, &task, more);
        let found = parallel::explore(vec![first], Finds::default, look)?;
        let mut changes = Vec::new();
        let mut candidates = Vec::new();
        let mut attributes = Vec::new();
        let mut lists = Vec::new();
        if self.depth != Depth::Compare {
            lists.resize_with(self.lists.load(Ordering::Relaxed), DirectoryList::default);
        }
        for finds in found {
            changes.extend(finds.changes);
            candidates.extend(finds.candidates);
            attributes.extend(finds.attributes);
            for (number, list) in finds.lists {
                lists[number] = list;
            }
        }
        for (place, attributes) in attributes {
            if let Some(known) = at(&mut lists, place) {
                known.attributes = attributes;
            }
        }
        let read = |buffer: &mut Vec<u8>, candidate: &Candidate| self.read(candidate, buffer);
        let contents = parallel::for_each(&candidates, || vec![0; 128 << 10], read)?;
        for (candidate, content) in candidates.into_iter().zip(contents) {
            let news = news(&candidate, content.as_ref());
            if let (Some(known), Some(content)) = (at(&mut lists, candidate.place), content) {
                (known.digest, known.attributes) = (content.digest, content.attributes);
            }
            if let Some(news) = news.filter(|_| !candidate.is_told) {
                changes.push(Change { path: candidate.path, news, is_directory: false });
            }
        }
        Ok(Looked { changes: Changes::new(changes), baseline: Baseline::assemble(lists) })
    }

    /// Looks at one directory.
    fn directory(&self, finds: &mut Finds, task: &Task, more: &mut Vec<Task>) -> Result<(), LookError> {
        let failed = |action, error: io::Error| failed(action, &self.path.join(&task.path))(error);
        let mut old = self.before.list(task.before.unwrap_or_default()).iter().peekable();
        let directory = match beneath::open_directory(self.root.as_fd(), &task.path) {
            Ok(directory) => directory,
            // It went, or became something else, since it was found: what was in it is gone.
            Err(error) if is_gone(&error) && task.list != 0 => {
                old.for_each(|known| self.deleted(finds, &task.path, known));
                return Ok(());
            }
            Err(error) => return Err(failed("open", error)),
        };
        if let Some(itself) = &task.itself {
            self.directory_itself(finds, task, itself, &directory).map_err(|error| failed("read", error))?;
        }
        let mut listing = std::mem::take(&mut finds.listing);
        listing.read(&directory).map_err(|errno| failed("list", errno.into()))?;
        let mut list = DirectoryList::default();
        let mut seen = 0;
        for name in listing.names() {
            while let Some(gone) = old.next_if(|known| self.before.name(known) < name) {
                self.deleted(finds, &task.path, gone);
            }
            let before = old.next_if(|known| self.before.name(known) == name);
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(failed("look into", errno.into())),
            };
            let stamp = stat.as_ref().map(Stamp::of).filter(|stamp| is_kept(FileType::from_raw_mode(stamp.mode)));
            let Some(stamp) = stamp else {
                before.into_iter().for_each(|known| self.deleted(finds, &task.path, known));
                continue;
            };
            let at = At { task, directory: &directory, name, index: seen };
            seen += 1;
            let known = self.compare(finds, &at, &stamp, before, more);
            let known = known.map_err(|errno| failed("read a link in", errno.into()))?;
            if self.depth != Depth::Compare {
                list.push(name, known);
            }
        }
        old.for_each(|known| self.deleted(finds, &task.path, known));
        finds.listing = listing;
        if self.seen.fetch_add(seen, Ordering::Relaxed) + seen > MAX_ENTRIES {
            return Err(LookError::TooMany { most: MAX_ENTRIES });
        }
        if self.depth != Depth::Compare {
            finds.lists.push((task.list, list));
        }
        Ok(())
    }

    /// Looks at a directory's own attributes, if it was touched at all.
    fn directory_itself(&self, finds: &mut Finds, task: &Task, itself: &Itself, directory: &OwnedFd) -> io::Result<()> {
        if itself.before.is_some_and(|before| before.ctime == itself.ctime) {
            return Ok(());
        }
        let now = attributes::fingerprint(directory)?;
        if itself.before.is_some_and(|before| before.attributes != now) && !itself.is_told {
            finds.tell(task.path.clone(), News::Mode, true);
        }
        if now != 0 && self.depth != Depth::Compare {
            finds.attributes.push((itself.place, now));
        }
        Ok(())
    }

    /// Looks at one thing in a directory; what it looks like now.
    fn compare(
        &self,
        finds: &mut Finds,
        at: &At<'_>,
        stamp: &Stamp,
        before: Option<&Known>,
        more: &mut Vec<Task>,
    ) -> rustix::io::Result<Known> {
        let mut now = Known::new(stamp, self.looked);
        let kind = now.kind();
        let same = before.filter(|before| before.kind() == kind);
        if let (Some(before), None) = (before, same)
            && before.is_directory()
        {
            for (path, known) in self.before.below(&at.path(), before.children()) {
                finds.tell(path, News::Deleted, known.is_directory());
            }
        }
        let mut news = match (before, same) {
            (None, _) => Some(News::Added),
            (Some(_), None) => Some(News::Modified),
            (Some(_), Some(before)) if before.mode != now.mode && kind == FileType::Directory => Some(News::Mode),
            _ => None,
        };
        match kind {
            FileType::Directory => {
                let list = self.lists.fetch_add(1, Ordering::Relaxed);
                now.size = list as u64;
                let itself = Itself {
                    before: same.copied(),
                    ctime: stamp.ctime,
                    place: (at.task.list, at.index),
                    is_told: news.is_some() || self.depth == Depth::Names,
                };
                // Unless it was touched.
                now.attributes = same.filter(|same| same.ctime == stamp.ctime).map_or(0, |same| same.attributes);
                more.push(Task { path: at.path(), list, before: same.map(Known::children), itself: Some(itself) });
            }
            FileType::Symlink => {
                let is_same = same.is_some_and(|same| same.looks_like(stamp) && !same.is_fresh);
                if let (true, Some(same)) = (is_same, same) {
                    now.digest = same.digest;
                } else if self.depth != Depth::Names || same.is_some() {
                    let target = rustix::fs::readlinkat(at.directory, at.name, Vec::new())?;
                    now.digest = Digest::of(target.as_bytes()).0;
                    if same.is_some_and(|same| same.digest != now.digest) {
                        news = Some(News::Modified);
                    }
                }
            }
            _ => {
                let candidate = |before: Option<Known>, is_told| Candidate {
                    path: at.path(),
                    stamp: *stamp,
                    before,
                    place: (at.task.list, at.index),
                    is_told,
                };
                match same {
                    Some(same) if same.looks_like(stamp) && (!same.is_fresh || same.digest == UNKNOWN) => {
                        (now.digest, now.attributes) = (same.digest, same.attributes);
                    }
                    Some(same) if same.digest != UNKNOWN && same.size == stamp.size => {
                        finds.candidates.push(candidate(Some(*same), false));
                    }
                    Some(_) => news = Some(News::Modified),
                    None => {}
                }
                if news.is_some() && self.depth == Depth::Advance {
                    finds.candidates.push(candidate(None, true));
                }
            }
        }
        if let Some(news) = news.filter(|_| self.depth != Depth::Names) {
            finds.tell(at.path(), news, kind == FileType::Directory);
        }
        Ok(now)
    }

    /// Something is gone, and what was in it.
    fn deleted(&self, finds: &mut Finds, directory: &Path, known: &Known) {
        let path = directory.join(self.before.name(known));
        if known.is_directory() {
            for (path, known) in self.before.below(&path, known.children()) {
                finds.tell(path, News::Deleted, known.is_directory());
            }
        }
        finds.tell(path, News::Deleted, known.is_directory());
    }

    /// Reads a file; `None` when it changes meanwhile, or can't be read: then nothing is known of it.
    fn read(&self, candidate: &Candidate, buffer: &mut [u8]) -> Result<Option<Content>, LookError> {
        let failed = |error| self::failed("read", &self.path.join(&candidate.path))(error);
        let mut file = match beneath::open_file(self.root.as_fd(), &candidate.path) {
            Ok(file) => file,
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let is_same = |file: &std::fs::File| rustix::fs::fstat(file).map(|stat| Stamp::of(&stat) == candidate.stamp);
        if !is_same(&file).map_err(|errno| failed(errno.into()))? {
            return Ok(None);
        }
        let mut hasher = Hasher::default();
        loop {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let attributes = attributes::fingerprint(&file).map_err(failed)?;
        let is_same = is_same(&file).map_err(|errno| failed(errno.into()))?;
        Ok(is_same.then(|| Content { digest: hasher.finish().0, attributes }))
    }
}

/// A name in a directory.
struct At<'a> {
    task: &'a Task,
    directory: &'a OwnedFd,
    name: &'a OsStr,
    /// Where in the directory's list it comes to stand.
    index: usize,
}

impl At<'_> {
    fn path(&self) -> PathBuf {
        // `join` would put a slash before nothing.
        if self.task.path.as_os_str().is_empty() { PathBuf::from(self.name) } else { self.task.path.join(self.name) }
    }
}

impl Finds {
    fn tell(&mut self, path: PathBuf, news: News, is_directory: bool) {
        self.changes.push(Change { path, news, is_directory });
    }
}

fn at(lists: &mut [DirectoryList], (list, index): Place) -> Option<&mut Known> {
    lists.get_mut(list)?.known.get_mut(index)
}

/// What became of a file, by what is in it now.
fn news(candidate: &Candidate, content: Option<&Content>) -> Option<News> {
    let (Some(before), Some(content)) = (&candidate.before, content) else { return Some(News::Modified) };
    if before.digest != content.digest {
        return Some(News::Modified);
    }
    let is_same = (before.mode, before.attributes) == (candidate.stamp.mode, content.attributes);
    (!is_same).then_some(News::Mode)
}

/// Sockets, pipes and devices mean nothing elsewhere.
fn is_kept(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LookError + use<> {
    let path = path.to_owned();
    move |source| LookError::Io { action, path, source }
}
