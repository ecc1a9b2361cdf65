//! This machine's own files in the place of an image's: what of them a job doesn't see, and where what it needs is put.
//!
//! All of it is there read-only, mounted as it is mounted here. Over what is somebody's own (homes, what runs, other jobs)
//! lies an empty directory in memory; over what only root should read, nothing can be read.

use std::path::{Path, PathBuf};

/// What isn't shown in any case.
const HIDDEN: [&str; 12] = [
    "/home",
    "/root",
    "/run",
    "/tmp",
    "/var/tmp",
    "/var/log",
    "/var/spool",
    "/var/lib/docker",
    "/var/lib/containers",
    "/var/lib/containerd",
    "/mnt",
    "/media",
];

/// Those that any program may write to.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];

/// Files that a job of root could read otherwise: it keeps root's name, if nothing of its power.
pub(super) const SECRET: [&str; 7] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
];

/// The directories in memory: path and mount options. None lies in another.
pub(super) fn covers(hidden: &[PathBuf]) -> Vec<(PathBuf, &'static str)> {
    let all: Vec<PathBuf> = HIDDEN.iter().map(PathBuf::from).chain(hidden.iter().cloned()).collect();
    let is_within = |path: &Path| all.iter().any(|other| other != path && path.starts_with(other));
    let mut covers: Vec<(PathBuf, &'static str)> = Vec::new();
    for path in &all {
        if path.is_dir() && !path.is_symlink() && !is_within(path) && !covers.iter().any(|(known, _)| known == path) {
            let is_shared = SHARED.iter().any(|shared| Path::new(shared) == path);
            covers.push((path.clone(), if is_shared { "mode=1777" } else { "mode=755" }));
        }
    }
    covers
}

/// The file with the addresses of name servers, where it lies in a directory that is covered.
pub(super) fn covered_names() -> Option<PathBuf> {
    let file = std::fs::canonicalize("/etc/resolv.conf").ok()?;
    HIDDEN.iter().any(|hidden| file.starts_with(hidden)).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_covered_twice() {
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let [outer, inner] = ["a", "a/b"].map(|name| temp.path().join(name));
        std::fs::create_dir_all(&inner).unwrap();
        let hidden = [inner, outer.clone(), outer.clone(), "/tmp/x".into(), temp.path().join("not there")];
        let covers = covers(&hidden);
        assert_eq!(covers.iter().filter(|(path, _)| path.starts_with(temp.path())).count(), 1);
        assert!(covers.contains(&(outer, "mode=755")));
        assert!(covers.contains(&("/tmp".into(), "mode=1777")));
    }
}
