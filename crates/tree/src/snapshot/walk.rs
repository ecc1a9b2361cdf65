//! Finding what belongs to a snapshot: one walk over the directories, shared out over the processors.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{AtFlags, Dir, FileType, readlinkat, statat};

use super::repository::{Repository, Rules};
use super::{SnapshotError, SnapshotOptions};
use crate::manifest::{MAX_ENTRIES, MODE_BITS};
use crate::stamp::Stamp;
use crate::{beneath, parallel};

/// Something that was found, with its path below the root.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) kind: FoundKind,
}

#[derive(Clone, Debug)]
pub(super) enum FoundKind {
    Directory { mode: u32 },
    File(Stamp),
    Symlink(PathBuf),
}

/// A directory to be listed.
struct Task {
    /// Where its list goes.
    id: usize,
    /// Below the root.
    path: PathBuf,
    scope: Scope,
}

/// What of a directory belongs to the snapshot.
#[derive(Clone)]
enum Scope {
    /// All of it.
    All,
    /// What git tracks, or doesn't ignore.
    Git {
        repository: Arc<Repository>,
        /// The directory's path below the repository's top.
        path: PathBuf,
        rules: Rules,
        /// The directory itself is ignored: only what is tracked in it counts.
        ignored: bool,
    },
}

/// One directory's names in order, directories with their own list's number.
type Listing = Vec<(OsString, FoundKind, Option<usize>)>;

struct State {
    tasks: Vec<Task>,
    /// Tasks that are taken or waiting.
    open: usize,
    lists: Vec<Listing>,
    entries: usize,
    error: Option<SnapshotError>,
}

struct Walk<'a> {
    root: &'a OwnedFd,
    root_path: &'a Path,
    options: &'a SnapshotOptions,
    state: Mutex<State>,
    changed: Condvar,
}

/// Everything of the snapshot below `root`, in the order of a manifest.
pub(super) fn walk(root: &OwnedFd, root_path: &Path, options: &SnapshotOptions) -> Result<Vec<Found>, SnapshotError> {
    let scope = match (options.git, Repository::around(root_path, &options.excludes)?) {
        (true, Some(repository)) => {
            let path = root_path.strip_prefix(repository.top()).unwrap_or(Path::new("")).to_owned();
            let rules = repository.above(&path)?;
            let ignored = !path.as_os_str().is_empty() && is_ignored(&repository, &path)?;
            // Whoever asks for an ignored directory means what is in it.
            if ignored { Scope::All } else { Scope::Git { repository: Arc::new(repository), path, rules, ignored } }
        }
        _ => Scope::All,
    };
    let tasks = vec![Task { id: 0, path: PathBuf::new(), scope }];
    let state = State { tasks, open: 1, lists: vec![Vec::new()], entries: 0, error: None };
    let walk = Walk { root, root_path, options, state: Mutex::new(state), changed: Condvar::new() };
    thread::scope(|scope| {
        for _ in 1..parallel::threads() {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    let state = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.error {
        Some(error) => Err(error),
        None => Ok(flatten(state.lists, state.entries)),
    }
}

/// Whether a directory of a repository, or one above it, is ignored and has nothing tracked in it.
fn is_ignored(repository: &Repository, path: &Path) -> Result<bool, SnapshotError> {
    if !repository.tracked.below(&[path.as_os_str().as_bytes(), b"/"].concat()).is_empty() {
        return Ok(false);
    }
    for directory in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        if repository.ignores(&repository.above(directory)?, directory, true) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts the lists of directories in the one order.
fn flatten(mut lists: Vec<Listing>, entries: usize) -> Vec<Found> {
    let mut found = Vec::with_capacity(entries);
    let mut open = vec![(PathBuf::new(), std::mem::take(&mut lists[0]).into_iter())];
    while let Some((above, list)) = open.last_mut() {
        let Some((name, kind, below)) = list.next() else {
            open.pop();
            continue;
        };
        let path = if above.as_os_str().is_empty() { PathBuf::from(name) } else { above.join(name) };
        if let Some(id) = below {
            open.push((path.clone(), std::mem::take(&mut lists[id]).into_iter()));
        }
        found.push(Found { path, kind });
    }
    found
}

impl Walk<'_> {
    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists directories until none is left.
    fn work(&self) {
        let mut state = self.hold();
        loop {
            if state.open == 0 || state.error.is_some() {
                self.changed.notify_all();
                return;
            }
            let Some(task) = state.tasks.pop() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let listed = self.list(&task);
            state = self.hold();
            match listed {
                Ok((mut list, below)) => {
                    state.entries += list.len();
                    if state.entries > MAX_ENTRIES {
                        state.error = Some(SnapshotError::TooMany { most: MAX_ENTRIES });
                    }
                    let mut below = below.into_iter();
                    for (name, kind, id) in &mut list {
                        let (FoundKind::Directory { .. }, Some(scope)) = (&*kind, below_of(kind, &mut below)) else {
                            continue;
                        };
                        let next = state.lists.len();
                        *id = Some(next);
                        state.tasks.push(Task { id: next, path: task.path.join(&*name), scope });
                        state.lists.push(Vec::new());
                        state.open += 1;
                    }
                    state.lists[task.id] = list;
                }
                Err(error) => {
                    state.error.get_or_insert(error);
                }
            }
            state.open -= 1;
            // One of the tasks is for this thread itself.
            if state.open == 0 || state.error.is_some() || state.tasks.len() > 1 {
                self.changed.notify_all();
            }
        }
    }

    /// The names in a directory that belong to the snapshot, and the scopes of the directories among them.
    fn list(&self, task: &Task) -> Result<(Listing, Vec<Scope>), SnapshotError> {
        let failed = |action| SnapshotError::io(action, &self.root_path.join(&task.path));
        let directory = match beneath::open_directory(self.root.as_fd(), &task.path) {
            Ok(directory) => directory,
            // It went, or became something else, since it was found.
            Err(error) if is_gone(&error) => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(failed("open")(error)),
        };
        let mut names = Vec::new();
        let mut has = (false, false);
        let mut listing = Dir::new(directory).map_err(|errno| failed("list")(errno.into()))?;
        while let Some(entry) = listing.read() {
            let entry = entry.map_err(|errno| failed("list")(errno.into()))?;
            match entry.file_name().to_bytes() {
                b"." | b".." => continue,
                b".git" => has.0 = true,
                b".gitignore" => has.1 = true,
                _ => {}
            }
            names.push((OsString::from_vec(entry.file_name().to_bytes().to_vec()), entry.file_type()));
        }
        let directory = listing.fd().map_err(|errno| failed("list")(errno.into()))?;
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let scope = self.enter(task, has.0, has.1)?;
        let tracked = scope.tracked();
        let mut list = Vec::with_capacity(names.len());
        let mut below = Vec::new();
        for (name, mut kind) in names {
            if kind == FileType::Unknown {
                // Not every filesystem says it in its lists.
                let Ok(stat) = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                kind = FileType::from_raw_mode(stat.st_mode);
            }
            let Some(inner) = scope.takes(&name, kind, tracked, self.options) else { continue };
            let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(failed("look into")(errno.into())),
            };
            let found = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => FoundKind::File(Stamp::of(&stat)),
                FileType::Directory => {
                    below.push(inner);
                    FoundKind::Directory { mode: Stamp::of(&stat).mode & MODE_BITS }
                }
                FileType::Symlink => match readlinkat(directory, &name, Vec::new()) {
                    Ok(target) => FoundKind::Symlink(OsString::from_vec(target.into_bytes()).into()),
                    Err(rustix::io::Errno::NOENT) => continue,
                    Err(errno) => return Err(failed("read a link in")(errno.into())),
                },
                // Sockets, pipes and devices mean nothing elsewhere.
                _ => continue,
            };
            list.push((name, found, None));
        }
        Ok((list, below))
    }

    /// The scope inside a directory, now that it is known what stands there.
    fn enter(&self, task: &Task, has_git: bool, has_ignore: bool) -> Result<Scope, SnapshotError> {
        let Scope::Git { repository, path, rules, ignored } = &task.scope else { return Ok(Scope::All) };
        if has_git && !path.as_os_str().is_empty() && !ignored {
            // A repository in the repository, a submodule say, has its own rules.
            let top = self.root_path.join(&task.path);
            if let Some(inner) = Repository::at(&top, &self.options.excludes)? {
                let rules = inner.enter(Path::new(""), &Rules::default(), has_ignore)?;
                return Ok(Scope::Git { repository: Arc::new(inner), path: PathBuf::new(), rules, ignored: false });
            }
        }
        let rules = repository.enter(path, rules, has_ignore)?;
        Ok(Scope::Git { repository: Arc::clone(repository), path: path.clone(), rules, ignored: *ignored })
    }
}

impl Scope {
    /// Tracked paths in the directory and below, and how long the part is that they all begin with.
    fn tracked(&self) -> (&[Box<[u8]>], usize) {
        match self {
            Self::All => (&[], 0),
            Self::Git { repository, path, .. } => {
                let mut prefix = path.as_os_str().as_bytes().to_vec();
                if !prefix.is_empty() {
                    prefix.push(b'/');
                }
                (repository.tracked.below(&prefix), prefix.len())
            }
        }
    }

    /// The scope of a name, if it belongs to the snapshot.
    fn takes(
        &self,
        name: &OsStr,
        kind: FileType,
        (tracked, prefix): (&[Box<[u8]>], usize),
        options: &SnapshotOptions,
    ) -> Option<Self> {
        let Self::Git { repository, path, rules, ignored } = self else { return Some(Self::All) };
        if name == ".git" {
            return options.copy_git.then_some(Self::All);
        }
        let name_bytes = name.as_bytes();
        let start = tracked.partition_point(|path| path[prefix..] < *name_bytes);
        if kind != FileType::Directory && tracked.get(start).is_some_and(|path| path[prefix..] == *name_bytes) {
            return Some(Self::All);
        }
        let inner = path.join(name);
        let is_directory = kind == FileType::Directory;
        let out = *ignored || repository.ignores(rules, &inner, is_directory);
        if out && !(is_directory && has_below(&tracked[start..], prefix, name_bytes)) {
            return None;
        }
        Some(Self::Git { repository: Arc::clone(repository), path: inner, rules: rules.clone(), ignored: out })
    }
}

/// Whether a path of `tracked`, which is sorted and begins with what isn't before `name`, lies below `name`.
fn has_below(tracked: &[Box<[u8]>], prefix: usize, name: &[u8]) -> bool {
    let below = [name, b"/"].concat();
    let start = tracked.partition_point(|path| path[prefix..] < *below);
    tracked.get(start).is_some_and(|path| path[prefix..].starts_with(&below))
}

fn below_of(kind: &FoundKind, below: &mut impl Iterator<Item = Scope>) -> Option<Scope> {
    matches!(kind, FoundKind::Directory { .. }).then(|| below.next()).flatten()
}

pub(super) fn is_gone(error: &std::io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    errno.is_some_and(|errno| {
        matches!(errno, rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP)
    })
}
