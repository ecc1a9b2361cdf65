//! What is found where a layer comes from, in one order, and by what it is known to be unchanged.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use executr_spec::{Digest, Hasher};
use executr_tree::Stamp;
use rustix::fs::{FileType, Stat, lstat, stat};

use super::program::check_static;
use super::{BuildError, Compression, LayerRecipe, Part};

/// Raised when the same files would become other bytes.
const FORMAT: u8 = 1;

/// A change this short before may share its time with another one that comes later.
const YOUNG: Duration = Duration::from_millis(100);
/// The same where times are whole seconds.
const YOUNG_IN_SECONDS: Duration = Duration::from_secs(2);

/// What a layer is made of: by the path in it, sorted, so that directories come before what is in them.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) entries: BTreeMap<PathBuf, Item>,
}

/// One thing in a layer.
#[derive(Debug)]
pub(super) struct Item {
    /// Where it comes from; nothing for a directory that is only on the way.
    pub(super) from: Option<PathBuf>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) stamp: Option<Stamp>,
    device: u64,
}

/// What it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File {
        size: u64,
    },
    Symlink {
        target: PathBuf,
    },
    /// Another name of what stands there.
    HardLink {
        of: PathBuf,
    },
    Fifo,
}

impl Listing {
    /// Looks at all that a layer is made of, and reads none of it.
    pub(super) fn of(recipe: &LayerRecipe) -> Result<Self, BuildError> {
        let mut listing = Self { entries: BTreeMap::new() };
        for part in &recipe.parts {
            match part {
                Part::Directory { from, to } => {
                    let target = place(to)?;
                    let stat = stat(from).map_err(|errno| BuildError::io("look at", from)(errno.into()))?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                        let why = "it is no directory; add it as a file".to_owned();
                        return Err(BuildError::Unfit { path: from.clone(), why });
                    }
                    listing.above(&target);
                    listing.walk(from, &target, &stat)?;
                }
                Part::File { from, to, mode } => listing.file(from, to, *mode)?,
                Part::Program { from, to } => {
                    check_static(from)?;
                    listing.file(from, to, Some(0o755))?;
                }
            }
        }
        listing.link();
        Ok(listing)
    }

    fn file(&mut self, from: &Path, to: &str, mode: Option<u32>) -> Result<(), BuildError> {
        let target = place(to)?;
        if target.as_os_str().is_empty() || to.ends_with('/') {
            return Err(BuildError::Target { target: to.to_owned(), why: "it is to be the file's place and name" });
        }
        let stat = stat(from).map_err(|errno| BuildError::io("look at", from)(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let why = "it is no file; add a directory as a layer".to_owned();
            return Err(BuildError::Unfit { path: from.to_owned(), why });
        }
        self.above(&target);
        let mut item = item(from, &stat)?;
        item.mode = mode.unwrap_or(item.mode);
        self.add(target, item)
    }

    /// The directories above a place, where nothing says what they are like.
    fn above(&mut self, target: &Path) {
        for directory in target.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
            let plain = Item { from: None, kind: Kind::Directory, mode: 0o755, stamp: None, device: 0 };
            self.entries.entry(directory.to_owned()).or_insert(plain);
        }
    }

    fn walk(&mut self, from: &Path, target: &Path, stat: &Stat) -> Result<(), BuildError> {
        // The image's own root is no entry: the base says what it is like.
        let item = item(from, stat)?;
        self.add(target.to_owned(), item)?;
        let listing = fs::read_dir(from).map_err(BuildError::io("list", from))?;
        for entry in listing {
            let entry = entry.map_err(BuildError::io("list", from))?;
            let (path, target) = (entry.path(), target.join(entry.file_name()));
            if entry.file_name().as_bytes().starts_with(b".wh.") {
                let why = "its name would be taken for the removal of another".to_owned();
                return Err(BuildError::Unfit { path, why });
            }
            let stat = lstat(&path).map_err(|errno| BuildError::io("look at", &path)(errno.into()))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.walk(&path, &target, &stat)?;
            } else {
                let item = self::item(&path, &stat)?;
                self.add(target, item)?;
            }
        }
        Ok(())
    }

    /// Directories may come from several parts, and are then as the last says; all else only once.
    fn add(&mut self, target: PathBuf, item: Item) -> Result<(), BuildError> {
        let is_directory = item.kind == Kind::Directory;
        if let Some(there) = self.entries.get(&target)
            && !(is_directory && there.kind == Kind::Directory)
        {
            let path = item.from.clone().unwrap_or_default();
            let why = format!("/{} is in the layer already", target.display());
            return Err(BuildError::Unfit { path, why });
        }
        self.entries.insert(target, item);
        Ok(())
    }

    /// Finds files that are one under several names.
    fn link(&mut self) {
        let mut first: HashMap<(u64, u64), (PathBuf, u32)> = HashMap::new();
        for (path, item) in &mut self.entries {
            let (Kind::File { .. }, Some(stamp)) = (&item.kind, &item.stamp) else { continue };
            match first.get(&(item.device, stamp.inode)) {
                Some((of, mode)) if *mode == item.mode => item.kind = Kind::HardLink { of: of.clone() },
                Some(_) => {}
                None => {
                    first.insert((item.device, stamp.inode), (path.clone(), item.mode));
                }
            }
        }
    }

    /// By what all of it is known to be unchanged. Nothing where something is so young that a change could hide.
    pub(super) fn fingerprint(&self, compression: Compression, now: SystemTime) -> (Digest, bool) {
        let mut hasher = Hasher::default();
        hasher.update(&[FORMAT, compression as u8]);
        let mut number = |number: u64| hasher.update(&number.to_le_bytes());
        let mut youngest = 0;
        let mut has_fractions = false;
        let mut names = Vec::new();
        for (path, item) in &self.entries {
            number(item.mode.into());
            for name in [Some(path), item.from.as_ref()] {
                let name = name.map_or(&[][..], |name| name.as_os_str().as_bytes());
                number(name.len() as u64);
                names.extend_from_slice(name);
            }
            if let Some(stamp) = item.stamp {
                for value in [stamp.ctime, stamp.mtime] {
                    number(value.cast_unsigned());
                }
                number(item.device);
                number(stamp.size);
                number(stamp.inode);
                youngest = youngest.max(stamp.ctime);
                has_fractions |= stamp.ctime % 1_000_000_000 != 0;
            }
        }
        hasher.update(&names);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let margin = if has_fractions { YOUNG } else { YOUNG_IN_SECONDS };
        let is_settled = i128::from(youngest) + margin.as_nanos().cast_signed() < since.as_nanos().cast_signed();
        (hasher.finish(), is_settled)
    }
}

fn item(from: &Path, stat: &Stat) -> Result<Item, BuildError> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File { size: u64::try_from(stat.st_size).unwrap_or(0) },
        FileType::Symlink => {
            let target = rustix::fs::readlink(from, Vec::new());
            let target = target.map_err(|errno| BuildError::io("read the link", from)(errno.into()))?;
            Kind::Symlink { target: std::ffi::OsString::from_vec(target.into_bytes()).into() }
        }
        FileType::Fifo => Kind::Fifo,
        other => {
            let why = format!("it is a {other:?}; leave it out");
            return Err(BuildError::Unfit { path: from.to_owned(), why });
        }
    };
    let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { stat.st_mode & 0o7777 };
    #[allow(clippy::useless_conversion, reason = "the field differs between processors")]
    let device = u64::from(stat.st_dev);
    Ok(Item { from: Some(from.to_owned()), kind, mode, stamp: Some(Stamp::of(stat)), device })
}

/// The path of a place below the image's root.
fn place(target: &str) -> Result<PathBuf, BuildError> {
    let wrong = |why| BuildError::Target { target: target.to_owned(), why };
    let below = target.strip_prefix('/').ok_or_else(|| wrong("it doesn't begin with a slash"))?;
    let mut path = PathBuf::new();
    for name in below.split('/') {
        match name {
            "" | "." => {}
            ".." => return Err(wrong("it leads out of the image")),
            name if name.starts_with(".wh.") => return Err(wrong("it would be taken for the removal of another")),
            name => path.push(name),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_below_the_root() {
        for (target, path) in [("/", ""), ("/opt//app/.", "opt/app"), ("/a b", "a b")] {
            assert_eq!(place(target).unwrap(), Path::new(path));
        }
        for target in ["", "opt", "../a", "/a/../b", "/.wh.a"] {
            assert!(place(target).is_err(), "{target}");
        }
    }

    #[test]
    fn a_change_changes_the_fingerprint_and_a_young_one_settles_nothing() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("d")).unwrap();
        fs::write(temp.path().join("d/f"), "one").unwrap();
        let part = |to: &str| Part::Directory { from: temp.path().join("d"), to: to.to_owned() };
        let of = |to: &str| Listing::of(&LayerRecipe { parts: vec![part(to)] }).unwrap();
        let later = SystemTime::now() + Duration::from_secs(10);
        let (first, is_settled) = of("/").fingerprint(Compression::None, later);
        assert!(is_settled);
        assert_eq!(of("/").fingerprint(Compression::None, later).0, first);
        assert_ne!(of("/a").fingerprint(Compression::None, later).0, first);
        assert_ne!(of("/").fingerprint(Compression::Gzip, later).0, first);
        fs::write(temp.path().join("d/f"), "two").unwrap();
        let (second, is_settled) = of("/").fingerprint(Compression::None, SystemTime::now());
        assert!(second != first && !is_settled);
    }

    #[test]
    fn what_comes_twice_or_fits_nowhere_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("f");
        fs::write(&file, "").unwrap();
        let part = |to: &str| Part::File { from: file.clone(), to: to.to_owned(), mode: None };
        let of = |parts| Listing::of(&LayerRecipe { parts }).map(drop).map_err(|error| error.to_string());
        of(vec![part("/a/b"), part("/a/c")]).unwrap();
        assert!(of(vec![part("/a"), part("/a")]).unwrap_err().contains("/a is in the layer already"));
        assert!(of(vec![part("/a/")]).unwrap_err().contains("place and name"));
        let socket = temp.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let all = Part::Directory { from: temp.path().to_owned(), to: "/".to_owned() };
        assert!(of(vec![all]).unwrap_err().contains("Socket"));
    }
}
