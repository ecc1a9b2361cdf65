//! The cluster all tests of a run share, although each test is a process of its own.
//!
//! Its directory is named after the run's process. Whoever takes the lock first starts it; a watcher ends it with
//! that process.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

use super::{Durability, cluster::Cluster, install::Install, place};

pub(super) fn cluster(install: &Install) -> Cluster {
    let owner = run_process();
    let base = base_directory();
    let lock = File::create(base.join("lock")).expect("the tests' own directory is writable");
    lock.lock().expect("a local file can be locked");

    // A process id comes round again; together with the start time it does not.
    let directory = base.join(format!("{owner}-{}", start_time(owner)));
    if let Some(cluster) = running(install, &directory) {
        return cluster;
    }
    // Here only if whoever started before us ended halfway.
    drop(fs::remove_dir_all(&directory));
    DirBuilder::new().mode(0o700).create(&directory).expect("the tests' own directory is writable");
    install.give_directory(&directory);
    let cluster = Cluster::create(install.clone(), &directory, Durability::Fast, &[]);
    cluster.end_with(owner);
    let ready = format!("{} {}", cluster.port(), cluster.password());
    fs::write(directory.join("ready"), ready).expect("the cluster's directory is writable");
    cluster
}

fn running(install: &Install, directory: &Path) -> Option<Cluster> {
    let ready = fs::read_to_string(directory.join("ready")).ok()?;
    let (port, password) = ready.split_once(' ')?;
    let port = port.parse().ok()?;
    Some(Cluster::existing(install.clone(), directory, port, password.to_owned()))
}

/// The process whose end is the end of the run.
fn run_process() -> u32 {
    // nextest is the parent of every test process; `cargo test` runs all tests of a binary in one.
    if std::env::var_os("NEXTEST").is_some() { parent_id() } else { std::process::id() }
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
fn start_time(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.expect("the run's process is alive while its tests run");
    // The second field is a name in parentheses that may hold spaces and parentheses itself.
    let (_, after_name) = stat.rsplit_once(')').expect("proc_pid_stat(5) has a name");
    let field = after_name.split_whitespace().nth(19);
    field.and_then(|ticks| ticks.parse().ok()).expect("field 22 is a number")
}

fn base_directory() -> PathBuf {
    let user = fs::metadata("/proc/self").expect("Linux has /proc").uid();
    let base = place::parent(Durability::Fast).join(format!("executr-postgres-{user}"));
    // Others may pass through (the server's account has to) but not look around.
    drop(DirBuilder::new().mode(0o711).create(&base));
    let found = fs::symlink_metadata(&base).expect("the temporary directory is writable");
    assert!(
        found.is_dir() && found.uid() == user,
        "{} belongs to someone else: remove it or set TMPDIR",
        base.display()
    );
    base
}
