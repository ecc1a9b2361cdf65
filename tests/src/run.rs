//! The test run this process is part of, and what its processes do only once between them.
//!
//! nextest starts a process for each test and is the parent of all of them; `cargo test` runs all tests of a binary in
//! one process, which is then a run of its own.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

/// The process whose end is the end of the run.
#[must_use]
pub fn process() -> u32 {
    if std::env::var_os("NEXTEST").is_some() { parent_id() } else { std::process::id() }
}

/// A word no other run has: a process id comes round again, together with its start time it does not.
#[must_use]
pub fn id() -> String {
    let process = process();
    format!("{process}-{}", start_time(process))
}

/// This user's own directory for tests below `parent`, and a lock on it that holds until the file is dropped.
///
/// Others may pass through the directory, as a database's account has to, but not look around.
///
/// # Panics
///
/// If `parent` is not writable, or somebody else has made the directory.
#[must_use]
pub fn locked_directory(parent: &Path) -> (PathBuf, File) {
    let user = fs::metadata("/proc/self").expect("Linux has /proc").uid();
    let directory = parent.join(format!("executr-tests-{user}"));
    // Fails when it is there already, which the next lines look at.
    drop(DirBuilder::new().mode(0o711).create(&directory));
    let found = fs::symlink_metadata(&directory).expect("the parent directory is writable");
    assert!(
        found.is_dir() && found.uid() == user,
        "{} belongs to someone else: remove it or set TMPDIR",
        directory.display()
    );
    let lock = File::create(directory.join("lock")).expect("one's own directory is writable");
    lock.lock().expect("a local file can be locked");
    (directory, lock)
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
