//! The program that runs containers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// One of those that are known to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeKind {
    /// In C, and by far the quickest.
    Crun,
    /// The one that others are measured by.
    Runc,
}

impl RuntimeKind {
    /// The program's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }
}

/// A program on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Which it is.
    pub kind: RuntimeKind,
    /// Where it is.
    pub program: PathBuf,
}

impl Runtime {
    /// The quickest in these directories.
    #[must_use]
    pub fn find(directories: &[PathBuf]) -> Option<Self> {
        [RuntimeKind::Crun, RuntimeKind::Runc].into_iter().find_map(|kind| {
            let program = directories.iter().map(|directory| directory.join(kind.as_str())).find(|path| path.is_file());
            Some(Self { kind, program: program? })
        })
    }

    /// The words that have it do something, with what it notes in `state`.
    pub(super) fn command<const N: usize>(&self, state: &Path, words: [&std::ffi::OsStr; N]) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![self.program.clone().into(), "--root".into(), state.into()];
        if self.kind == RuntimeKind::Crun {
            // Bounds are set around it, so that it needs none, and makes no group in each of ten hierarchies.
            command.push("--cgroup-manager=disabled".into());
        }
        command.extend(words.map(Into::into));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_is_taken_wherever_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let places = ["a", "b"].map(|name| temp.path().join(name));
        for place in &places {
            std::fs::create_dir(place).unwrap();
        }
        assert_eq!(Runtime::find(&places), None);
        std::fs::write(places[0].join("runc"), "").unwrap();
        assert_eq!(Runtime::find(&places).unwrap().kind, RuntimeKind::Runc);
        std::fs::write(places[1].join("crun"), "").unwrap();
        let found = Runtime::find(&places).unwrap();
        assert_eq!((found.kind, found.program), (RuntimeKind::Crun, places[1].join("crun")));
    }
}
