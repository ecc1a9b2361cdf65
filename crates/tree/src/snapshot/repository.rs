//! What git says about a worktree: which paths are tracked, and which of the others are ignored.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::SnapshotError;
use super::git_index::Tracked;

/// A git repository with a worktree. Paths in it are relative to its top.
#[derive(Debug)]
pub(super) struct Repository {
    top: PathBuf,
    pub(super) tracked: Tracked,
    /// What holds everywhere in it, the last first.
    everywhere: Vec<Gitignore>,
}

/// The ignore files from a directory up to the top of its repository.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Option<Arc<Rule>>);

#[derive(Debug)]
struct Rule {
    here: Gitignore,
    above: Rules,
}

impl Repository {
    /// The repository that `directory` lies in, if any.
    pub(super) fn around(directory: &Path, excludes: &[PathBuf]) -> Result<Option<Self>, SnapshotError> {
        for top in directory.ancestors() {
            if fs::symlink_metadata(top.join(".git")).is_ok() {
                return Self::at(top, excludes);
            }
        }
        Ok(None)
    }

    /// The repository whose top is `top`; `None` when its `.git` is something else.
    pub(super) fn at(top: &Path, excludes: &[PathBuf]) -> Result<Option<Self>, SnapshotError> {
        let unreadable = |path: &Path| SnapshotError::io("read", path);
        let dot_git = top.join(".git");
        let Some(git) = git_directory(&dot_git).map_err(unreadable(&dot_git))? else { return Ok(None) };
        // Worktrees share all but their index with the repository they belong to.
        let common = match fs::read_to_string(git.join("commondir")) {
            Ok(path) => git.join(path.trim_end()),
            Err(_) => git.clone(),
        };
        let tracked = Tracked::read(top, &git, &common).map_err(unreadable(&git.join("index")))?;
        let mut everywhere = Vec::new();
        for file in std::iter::once(common.join("info/exclude")).chain(excludes.iter().cloned()) {
            everywhere.extend(read_rules(Path::new(""), &file)?);
        }
        Ok(Some(Self { top: top.to_owned(), tracked, everywhere }))
    }

    /// Where it is.
    pub(super) fn top(&self) -> &Path {
        &self.top
    }

    /// The rules in `directory`, whose ignore file is there or not.
    pub(super) fn enter(&self, directory: &Path, above: &Rules, has_file: bool) -> Result<Rules, SnapshotError> {
        let here = if has_file { read_rules_of(&self.top, directory)? } else { None };
        Ok(match here {
            Some(here) => Rules(Some(Arc::new(Rule { here, above: above.clone() }))),
            None => above.clone(),
        })
    }

    /// The rules that hold in `directory` from above it.
    pub(super) fn above(&self, directory: &Path) -> Result<Rules, SnapshotError> {
        let mut rules = Rules::default();
        let above: Vec<_> = directory.ancestors().skip(1).collect();
        for directory in above.into_iter().rev() {
            rules = self.enter(directory, &rules, true)?;
        }
        Ok(rules)
    }

    /// Whether an untracked path is left out.
    pub(super) fn ignores(&self, rules: &Rules, path: &Path, is_directory: bool) -> bool {
        let mut rule = rules.0.as_ref();
        while let Some(Rule { here, above }) = rule.map(|rule| &**rule) {
            let found = here.matched(path, is_directory);
            if !found.is_none() {
                return found.is_ignore();
            }
            rule = above.0.as_ref();
        }
        let found =
            self.everywhere.iter().map(|rules| rules.matched(path, is_directory)).find(|found| !found.is_none());
        found.is_some_and(|found| found.is_ignore())
    }
}

/// Where `.git` leads: it is the directory, or names it.
fn git_directory(dot_git: &Path) -> io::Result<Option<PathBuf>> {
    let metadata = match fs::metadata(dot_git) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        // Anything may be called so; a repository has a head.
        return Ok(dot_git.join("HEAD").exists().then(|| dot_git.to_owned()));
    }
    if !metadata.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(dot_git)?;
    let path = text.strip_prefix("gitdir:").map(str::trim);
    Ok(path.and_then(|path| Some(dot_git.parent()?.join(path))).filter(|path| path.join("HEAD").exists()))
}

fn read_rules_of(top: &Path, directory: &Path) -> Result<Option<Gitignore>, SnapshotError> {
    read_rules(directory, &top.join(directory).join(".gitignore"))
}

/// The rules in `file` for what is below `directory`. None without such a file; git doesn't follow a link either.
fn read_rules(directory: &Path, file: &Path) -> Result<Option<Gitignore>, SnapshotError> {
    match fs::symlink_metadata(file) {
        Ok(metadata) if metadata.is_file() => {}
        _ => return Ok(None),
    }
    let text = fs::read(file).map_err(SnapshotError::io("read", file))?;
    let mut builder = GitignoreBuilder::new(directory);
    for line in String::from_utf8_lossy(&text).trim_start_matches('\u{feff}').lines() {
        // git passes over patterns that it can't read.
        let _ = builder.add_line(None, line);
    }
    Ok(builder.build().ok().filter(|rules| !rules.is_empty()))
}
