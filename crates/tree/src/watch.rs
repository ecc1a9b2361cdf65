//! What changes in a directory while it does: paths as soon as the kernel tells of them.
//!
//! This is for people who look on. The kernel's queue may run over, directories may fill before they are watched: then a walk
//! says what is different ([`Told::Rescan`]), and at the end it alone is the truth.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FileType, inotify};
use rustix::io::Errno;

use crate::beneath;

/// What is asked of the kernel about each directory.
const EVENTS: inotify::WatchFlags = inotify::WatchFlags::CREATE
    .union(inotify::WatchFlags::DELETE)
    .union(inotify::WatchFlags::MODIFY)
    .union(inotify::WatchFlags::ATTRIB)
    .union(inotify::WatchFlags::MOVED_FROM)
    .union(inotify::WatchFlags::MOVED_TO)
    .union(inotify::WatchFlags::ONLYDIR)
    .union(inotify::WatchFlags::DONT_FOLLOW);

/// So many bytes of events are read at a time.
const PIECE: usize = 16 << 10;
/// Paths that are told at once; more of them are a reason to look through everything.
const TOGETHER: usize = 4096;

/// What a watcher has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// These were touched, once or often: added, changed, removed. In the order of their bytes.
    Touched(Vec<PathBuf>),
    /// More happened than can be told: only a walk knows what.
    Rescan,
}

/// A directory that is watched, with all below it.
#[derive(Debug)]
pub struct Watcher {
    root: OwnedFd,
    events: OwnedFd,
    /// The directories, below the root, by the kernel's numbers.
    directories: HashMap<i32, PathBuf>,
    piece: Vec<MaybeUninit<u8>>,
    touched: BTreeSet<PathBuf>,
    /// Something was missed.
    missed: bool,
    /// The kernel watches no more directories for this user.
    is_full: bool,
}

impl Watcher {
    /// Watches a directory. What is in it now isn't told.
    ///
    /// # Errors
    /// When it can't be opened, or the kernel watches nothing for this user any more
    /// (`fs.inotify.max_user_instances`).
    pub fn new(directory: &Path) -> io::Result<Self> {
        let root = beneath::open_root(directory)?;
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let mut watcher = Self {
            root,
            events,
            directories: HashMap::new(),
            piece: vec![MaybeUninit::uninit(); PIECE],
            touched: BTreeSet::new(),
            missed: false,
            is_full: false,
        };
        watcher.add(PathBuf::new(), false)?;
        Ok(watcher)
    }

    /// Whether some directories aren't watched because the kernel watches no more for this user
    /// (`fs.inotify.max_user_watches`). Then a rescan is told at the end of every wait.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.is_full
    }

    /// Waits until something is touched, at most for `patience`, and tells it; `None` when nothing was.
    ///
    /// # Errors
    /// When the kernel doesn't tell any more.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Told>> {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut waited = [PollFd::new(&self.events, PollFlags::IN)];
        match rustix::event::poll(&mut waited, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while self.touched.len() < TOGETHER && self.take()? {}
        if std::mem::take(&mut self.missed) {
            self.touched.clear();
            // What came meanwhile has to be watched, too.
            self.add(PathBuf::new(), false)?;
            self.missed = false;
            return Ok(Some(Told::Rescan));
        }
        if self.touched.is_empty() {
            return Ok(self.is_full.then_some(Told::Rescan));
        }
        Ok(Some(Told::Touched(std::mem::take(&mut self.touched).into_iter().collect())))
    }

    /// Takes the events that are there; whether there were any.
    fn take(&mut self) -> io::Result<bool> {
        let mut piece = std::mem::take(&mut self.piece);
        let mut found = Vec::new();
        let mut gone = Vec::new();
        let read = {
            let mut events = inotify::Reader::new(self.events.as_fd(), &mut piece);
            loop {
                let event = match events.next() {
                    Ok(event) => event,
                    Err(Errno::AGAIN) => break Ok(false),
                    Err(Errno::INTR) => continue,
                    Err(errno) => break Err(errno),
                };
                let kind = event.events();
                if kind.contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                    self.missed = true;
                } else if kind.contains(inotify::ReadFlags::IGNORED) {
                    gone.push(event.wd());
                } else if let Some(directory) = self.directories.get(&event.wd()) {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    let path = name.map_or_else(|| directory.clone(), |name| directory.join(name));
                    let came = inotify::ReadFlags::CREATE | inotify::ReadFlags::MOVED_TO;
                    let is_new = kind.contains(inotify::ReadFlags::ISDIR) && kind.intersects(came);
                    found.push((path, is_new));
                }
                if events.is_buffer_empty() {
                    break Ok(true);
                }
            }
        };
        self.piece = piece;
        gone.iter().for_each(|number| drop(self.directories.remove(number)));
        for (path, is_new) in found {
            if is_new {
                self.add(path.clone(), true)?;
            }
            // The root itself is no news.
            if !path.as_os_str().is_empty() {
                self.touched.insert(path);
            }
        }
        Ok(read?)
    }

    /// Watches a directory and those below it; with `tell` what is in them already is told, since nobody saw it come.
    fn add(&mut self, path: PathBuf, tell: bool) -> io::Result<()> {
        let mut open = vec![path];
        while let Some(path) = open.pop() {
            let directory = match beneath::open_directory(self.root.as_fd(), &path) {
                Ok(directory) => directory,
                Err(_) if !path.as_os_str().is_empty() => continue,
                Err(error) => return Err(error),
            };
            // Through its descriptor: no link is followed on the way there.
            let by_descriptor = format!("/proc/self/fd/{}/.", directory.as_raw_fd());
            match inotify::add_watch(&self.events, by_descriptor, EVENTS) {
                Ok(number) => drop(self.directories.insert(number, path.clone())),
                Err(Errno::NOSPC) => self.is_full = true,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            // Listed after it is watched: what comes from now on is told.
            let Ok(listing) = rustix::fs::Dir::read_from(&directory) else { continue };
            for entry in listing.flatten() {
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let name = OsStr::from_bytes(name);
                let kind = match entry.file_type() {
                    FileType::Unknown => match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(_) => continue,
                    },
                    kind => kind,
                };
                let below = if path.as_os_str().is_empty() { PathBuf::from(name) } else { path.join(name) };
                if tell {
                    self.touched.insert(below.clone());
                }
                if kind == FileType::Directory {
                    open.push(below);
                }
            }
        }
        Ok(())
    }
}
