//! What of the run's tree goes into a job directory and where, and what of a job directory comes back.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::glob::{Glob, is_chosen};

/// What of the run's tree goes into a job directory, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileSelection {
    /// The file or directory, from the tree's root; all of it when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Where it comes to, from the job directory; where it is in the tree when nothing is said. With a slash at its end a file
    /// goes into it under its own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Which of what is in it; all when there is none. Paths begin at `from`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<Glob>,
    /// And which not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Glob>,
}

impl FileSelection {
    /// Where a path of the tree comes to; nothing when it isn't selected.
    #[must_use]
    pub fn target(&self, path: &Path, is_directory: bool) -> Option<PathBuf> {
        let from = plain(&self.from);
        let below = path.strip_prefix(&from).ok()?;
        let to = self.to.as_deref().map(plain).unwrap_or_else(|| from.clone());
        let target = if below.as_os_str().is_empty() {
            // Who names a file alone needn't name it again in `include`.
            if is_directory && !self.include.is_empty() {
                return None;
            }
            let into = !is_directory && self.to.as_deref().is_some_and(|to| to.ends_with('/') || to == ".");
            if into { to.join(path.file_name()?) } else { to }
        } else {
            is_chosen(&self.include, &self.exclude, below.as_os_str().as_bytes()).then(|| to.join(below))?
        };
        (!target.as_os_str().is_empty()).then_some(target)
    }
}

/// A path without `.`, slashes that say nothing, and what leads out.
fn plain(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// What of a job directory comes back: files that its steps added, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModifiedFiles {
    /// The artifact that holds the archive.
    pub name: String,
    /// Into which directory `executr run` unpacks it, from the one it was started in. Only stored without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What the archive is.
    #[serde(default)]
    pub archive: ArchiveKind,
    /// Which of them; all when there is none. Paths begin at the job directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<Glob>,
    /// And which not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Glob>,
}

impl ModifiedFiles {
    /// What the archive is called in its artifact.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.archive.as_str())
    }
}

/// A kind of archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ArchiveKind {
    /// A tar archive compressed with Zstandard.
    #[default]
    #[serde(rename = "tar.zst")]
    TarZst,
    /// One compressed with S2, the extension of Snappy.
    #[serde(rename = "tar.s2")]
    TarS2,
}

impl ArchiveKind {
    /// What its file's name ends with.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TarZst => "tar.zst",
            Self::TarS2 => "tar.s2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(selection: &FileSelection, path: &str, is_directory: bool) -> Option<String> {
        selection.target(Path::new(path), is_directory).map(|path| path.to_string_lossy().into_owned())
    }

    #[test]
    fn what_is_selected_comes_to_where_it_should() {
        let globs = |patterns: &[&str]| patterns.iter().map(|text| text.parse().expect("one")).collect::<Vec<Glob>>();
        let select = |from: &str, to: Option<&str>, include: &[&str], exclude: &[&str]| FileSelection {
            from: from.to_owned(),
            to: to.map(str::to_owned),
            include: globs(include),
            exclude: globs(exclude),
        };
        let src = select("src", None, &[], &[]);
        assert_eq!(target(&src, "src/a/b", false).as_deref(), Some("src/a/b"));
        assert_eq!(target(&src, "src", true).as_deref(), Some("src"));
        assert_eq!(target(&src, "srcs", false), None);
        let moved = select("./src/", Some("lib"), &["*.rs"], &["old"]);
        assert_eq!(target(&moved, "src/a/b.rs", false).as_deref(), Some("lib/a/b.rs"));
        assert_eq!(target(&moved, "src", true), None, "with `include` only what is meant is made");
        assert_eq!(target(&moved, "src/old/b.rs", false), None);
        let up = select("src", Some("."), &[], &[]);
        assert_eq!(target(&up, "src/a", false).as_deref(), Some("a"));
        assert_eq!(target(&up, "src", true), None, "the job directory itself is there");
        for (to, name) in [("bin/", "bin/tool.sh"), ("bin", "bin"), (".", "tool.sh")] {
            assert_eq!(
                target(&select("tools/tool.sh", Some(to), &[], &[]), "tools/tool.sh", false).as_deref(),
                Some(name)
            );
        }
        let most = select("", None, &[], &["*.md", "docs"]);
        assert_eq!(target(&most, "a/b", false).as_deref(), Some("a/b"));
        assert_eq!(target(&most, "docs/b", false), None);
    }
}
