//! Files of variables, and where their paths lead.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use executr_tree::{BlobDir, Kind, Manifest};

use super::MOST;

/// So many links are followed for one path, as the system does it.
const MOST_LINKS: usize = 40;

/// Why there is nothing to read.
const OUT: &str = "leads out of the repository; on a worker only files of the repository are read";
const LINK_OUT: &str = "is a link that leads out of the repository";
const NO_TREE: &str = "there is no repository to find it in: submit the workflow's file with `executr submit`, which sends it, or name a tree as the plan's `source`";

/// What to tell of a file that has to be there.
pub(super) fn not_there(path: &str) -> String {
    format!("{path} isn't there (files that git ignores are not part of a submitted run)")
}

/// What to tell without a tree.
pub(super) fn no_tree() -> String {
    NO_TREE.to_owned()
}

/// Reads a file of the user's own, at whatever path; `None` when it isn't there. Synchronous.
pub(super) fn read_own(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    // A pipe in the file's place must not hold the worker up.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    let mut text = String::new();
    file.take(MOST + 1).read_to_string(&mut text).map_err(failed)?;
    within_bounds(text).map(Some)
}

/// Reads a file of a tree; `None` when it isn't there. Links are followed within the tree. Synchronous.
pub(super) fn read_from(tree: &Manifest, blobs: &BlobDir, path: &str) -> Result<Option<String>, String> {
    let Some(path) = follow(tree, path)? else { return Ok(None) };
    let file = match tree.get(&path).map(|entry| &entry.kind) {
        Some(Kind::File(file)) => file,
        _ => return Err(format!("{} is no file", path.display())),
    };
    if file.size > MOST {
        return Err(too_large());
    }
    let bytes = match tree.extent(file) {
        None => Vec::new(),
        Some(extent) => {
            let blob = blobs.read(extent.blob).map_err(|error| error.to_string())?.unwrap_or_default();
            let start = usize::try_from(extent.offset).unwrap_or(usize::MAX);
            let found = blob.get(start..).and_then(|rest| rest.get(..usize::try_from(extent.length).ok()?));
            found.ok_or_else(|| format!("blob {} is damaged", extent.blob))?.to_vec()
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is no UTF-8 text", path.display()))?;
    within_bounds(text).map(Some)
}

fn within_bounds(text: String) -> Result<String, String> {
    if text.len() as u64 > MOST { Err(too_large()) } else { Ok(text) }
}

fn too_large() -> String {
    format!("has more than {MOST} bytes")
}

/// The path of a tree's entry that a path leads to, through links; `None` when there is none.
fn follow(tree: &Manifest, path: &str) -> Result<Option<PathBuf>, String> {
    if !is_inside(path) {
        return Err(OUT.to_owned());
    }
    let mut links = 0;
    let mut done = PathBuf::new();
    let mut left: Vec<OsString> = names(Path::new(path)).ok_or(OUT)?;
    while let Some(name) = left.pop() {
        if name == ".." {
            if !done.pop() {
                return Err(LINK_OUT.to_owned());
            }
            continue;
        }
        done.push(name);
        match tree.get(&done).map(|entry| &entry.kind) {
            None => return Ok(None),
            Some(Kind::Symlink { target }) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err("is a link that leads to itself".to_owned());
                }
                done.pop();
                left.extend(names(target).ok_or(LINK_OUT)?);
            }
            Some(Kind::File(_) | Kind::Directory { .. }) => {}
        }
    }
    Ok(Some(done))
}

/// The parts of a path that isn't absolute, the last one first.
fn names(path: &Path) -> Option<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir => names.push("..".into()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    names.reverse();
    Some(names)
}

fn is_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Where a path leads in a copy of the tree that was just made, and nobody else writes to; `None` when nothing is there.
pub(super) fn in_copy(copy: &Path, path: &str) -> Result<Option<PathBuf>, String> {
    if !is_inside(path) {
        return Err(OUT.to_owned());
    }
    let failed = |error: io::Error| format!("cannot find {path}: {error}");
    let found = match copy.join(path).canonicalize() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if found.starts_with(copy.canonicalize().map_err(failed)?) { Ok(Some(found)) } else { Err(LINK_OUT.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use executr_tree::SnapshotOptions;

    use super::*;

    #[test]
    fn links_are_followed_within_the_tree_only() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), "A=1").unwrap();
        for (target, link) in [
            ("../file", "a/b/up"),
            ("a/b", "short"),
            ("/etc/passwd", "absolute"),
            ("../outside", "outside"),
            ("loop", "loop"),
            ("gone", "dangling"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let snapshot = executr_tree::snapshot(root, &SnapshotOptions::everything()).unwrap();
        let tree = snapshot.manifest();
        for path in ["a/file", "./a/b/up", "short/up"] {
            assert_eq!(follow(tree, path), Ok(Some(PathBuf::from("a/file"))), "{path}");
        }
        for path in ["none", "a/none", "dangling", "a/file/none"] {
            assert_eq!(follow(tree, path), Ok(None), "{path}");
        }
        for path in ["absolute", "outside", "loop", "../x", "/etc/passwd", "a/../file"] {
            assert!(follow(tree, path).is_err(), "{path}");
        }
    }
}
