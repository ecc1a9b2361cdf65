//! A part of a tree, put together anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Entry, Kind, Manifest, ManifestError};

/// Of directories that nothing is said of.
const MODE: u32 = 0o755;

impl Manifest {
    /// What of this tree `target` gives a place, there: for each entry any number of paths below the root. What is placed later
    /// takes the place of what was there before, and directories on the way are made.
    ///
    /// The bytes of its files lie where those of this tree do. So it is there to be put somewhere, not to be encoded.
    ///
    /// # Errors
    /// [`ManifestError`] when a path is none, or one below something that is no directory.
    pub fn part<P>(&self, mut target: impl FnMut(&Entry) -> P) -> Result<Self, ManifestError>
    where
        P: IntoIterator<Item = (usize, PathBuf)>,
    {
        let mut placed: BTreeMap<PathBuf, (usize, Kind)> = BTreeMap::new();
        for entry in &self.entries {
            for (rank, path) in target(entry) {
                match placed.get(&path) {
                    Some((other, _)) if *other > rank => {}
                    _ => drop(placed.insert(path, (rank, entry.kind.clone()))),
                }
            }
        }
        let above: Vec<PathBuf> = placed
            .keys()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|path| !path.as_os_str().is_empty() && !placed.contains_key(*path))
            .map(Path::to_owned)
            .collect();
        for path in above {
            let mode = match self.get(&path) {
                Some(Entry { kind: Kind::Directory { mode }, .. }) => *mode,
                _ => MODE,
            };
            placed.insert(path, (0, Kind::Directory { mode }));
        }
        let entries = placed.into_iter().map(|(path, (_, kind))| Entry { path, kind }).collect();
        let part = Self { entries, packs: self.packs.clone() };
        part.check()?;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use executr_spec::Digest;

    use super::super::{FileEntry, Place};
    use super::*;

    fn file(path: &str, content: &str) -> Entry {
        let digest = Digest::of(content.as_bytes());
        let file = FileEntry { mode: 0o644, size: content.len() as u64, digest, place: Place::Empty };
        Entry { path: path.into(), kind: Kind::File(file) }
    }

    fn directory(path: &str, mode: u32) -> Entry {
        Entry { path: path.into(), kind: Kind::Directory { mode } }
    }

    fn tree() -> Manifest {
        let entries = vec![directory("a", 0o700), file("a/x", "x"), file("a/y", "yy"), file("z", "zzz")];
        Manifest::new(entries, vec![Digest::of(b"xyyzzz")]).expect("a tree")
    }

    #[test]
    fn what_is_chosen_keeps_its_bytes_and_directories_are_made() {
        let tree = tree();
        let part = tree
            .part(|entry| match entry.path.to_str() {
                Some("a/y") => vec![(0, "a/y".into()), (0, "new/deep/y".into())],
                _ => vec![],
            })
            .expect("a part");
        let shown: Vec<_> = part.entries().iter().map(|entry| entry.path.to_str().expect("text")).collect();
        assert_eq!(shown, ["a", "a/y", "new", "new/deep", "new/deep/y"]);
        assert_eq!(part.entries()[0].kind, Kind::Directory { mode: 0o700 });
        let extents: Vec<_> = part.files().map(|(_, file)| part.extent(file)).collect();
        let (_, before) = tree.files().nth(1).expect("there");
        assert_eq!(extents, [tree.extent(before), tree.extent(before)]);
    }

    #[test]
    fn of_two_at_one_place_the_higher_rank_counts() {
        let part = tree().part(|entry| match entry.path.to_str() {
            Some("a/x") => vec![(1, "f".into())],
            Some("z") => vec![(0, "f".into())],
            _ => vec![],
        });
        let part = part.expect("a part");
        assert_eq!(part.files().map(|(_, file)| file.size).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn nothing_is_put_below_a_file_or_outside() {
        let below = tree().part(|entry| match entry.path.to_str() {
            Some("a/x") => vec![(0, "f".into())],
            Some("z") => vec![(0, "f/g".into())],
            _ => vec![],
        });
        assert!(below.is_err());
        assert!(tree().part(|_| [(0, PathBuf::from("../x"))]).is_err());
    }
}
