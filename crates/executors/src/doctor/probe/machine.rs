//! The user, control groups, the data directory, programs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::{Resource, geteuid, getrlimit};
use tokio::process::Command;
use tokio::time::timeout;

use super::{PATIENCE, Surroundings};
use crate::doctor::facts::{CgroupMounts, Directory, Machine};

/// The number of `CAP_SYS_RESOURCE`, from capabilities(7).
const CAP_SYS_RESOURCE: u32 = 24;

pub(super) async fn probe(surroundings: &Surroundings) -> Machine {
    let (git, sops) = tokio::join!(version(&surroundings.path, "git"), version(&surroundings.path, "sops"));
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let files = getrlimit(Resource::Nofile);
    Machine {
        user: geteuid().as_raw(),
        may_raise_limits: has_capability(&read("/proc/self/status"), CAP_SYS_RESOURCE),
        cgroups: cgroup_mounts(&read("/proc/self/mountinfo")),
        systemd: Path::new("/run/systemd/system").is_dir(),
        data: directory(surroundings),
        open_files: (files.current, files.maximum),
        git,
        sops,
    }
}

/// The first line a program says of its version; `None` when it isn't there or says nothing in time.
pub(super) async fn version(path: &OsStr, program: &str) -> Option<String> {
    let program = find(path, program)?;
    let mut command = Command::new(program);
    command.arg("--version").env("PATH", path).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    Some(line).filter(|line| !line.is_empty())
}

/// Where a program is.
pub(super) fn find(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|file| {
        fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

fn has_capability(status: &str, number: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> number & 1 == 1)
}

fn cgroup_mounts(mountinfo: &str) -> CgroupMounts {
    // Behind the dash: kind, source, options.
    let kinds = || mountinfo.lines().filter_map(|line| line.split_once(" - ")?.1.split(' ').next());
    match (kinds().any(|kind| kind == "cgroup"), kinds().any(|kind| kind == "cgroup2")) {
        (false, false) => CgroupMounts::None,
        (true, false) => CgroupMounts::V1,
        (true, true) => CgroupMounts::Hybrid,
        (false, true) => CgroupMounts::V2,
    }
}

fn directory(surroundings: &Surroundings) -> Directory {
    let path = surroundings.data.clone();
    let system = statvfs(&path).ok();
    let free = system.as_ref().map(|system| system.f_bavail.saturating_mul(system.f_frsize));
    let runs_programs = system.is_none_or(|system| !system.f_flag.contains(StatVfsMountFlags::NOEXEC));
    let tried = surroundings.scratch.as_deref().map_err(Clone::clone);
    let (writable, reflink) = match tried.and_then(|scratch| try_out(scratch).map_err(|error| error.to_string())) {
        Ok(reflink) => (Ok(()), reflink),
        Err(problem) => (Err(problem), false),
    };
    Directory { path, writable, free, runs_programs, reflink }
}

/// Writes a file, and has another share its content; whether that can be had.
fn try_out(scratch: &Path) -> io::Result<bool> {
    let [first, second] = ["written", "shared"].map(|name| scratch.join(name));
    let tried = (|| {
        let mut from = File::create(&first)?;
        from.write_all(&[1; 4096])?;
        let to = File::create(&second)?;
        let from = File::open(&first)?;
        Ok(rustix::fs::ioctl_ficlone(&to, &from).is_ok())
    })();
    for file in [first, second] {
        // One that wasn't made needn't go.
        drop(fs::remove_file(file));
    }
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_a_bit() {
        assert!(has_capability("Name:\tx\nCapEff:\t000001ffffffffff\n", CAP_SYS_RESOURCE));
        assert!(!has_capability("CapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\n", CAP_SYS_RESOURCE));
        assert!(!has_capability("", CAP_SYS_RESOURCE));
    }

    #[test]
    fn mounts_tell_the_version() {
        let one = "31 29 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let two = "33 29 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_mounts(""), CgroupMounts::None);
        assert_eq!(cgroup_mounts(one), CgroupMounts::V1);
        assert_eq!(cgroup_mounts(two), CgroupMounts::V2);
        assert_eq!(cgroup_mounts(&format!("{one}{two}")), CgroupMounts::Hybrid);
    }

    #[tokio::test]
    async fn programs_are_found_along_the_path_and_asked() {
        let temp = tempfile::tempdir().expect("a directory");
        let program = temp.path().join("tool");
        fs::write(&program, "#!/bin/sh\necho tool 1.2\necho more\n").expect("writable");
        let path = temp.path().as_os_str();
        assert_eq!(version(path, "tool").await, None, "it can't be executed");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
        assert_eq!(version(path, "tool").await.as_deref(), Some("tool 1.2"));
        assert_eq!(version(path, "other").await, None);
    }
}
