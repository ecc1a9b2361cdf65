//! B2: two threads, each child with what every job needs: a directory made and removed, a session, two pipes read to
//! their end.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::child::{Setting, Starter, wait};

/// Threads, as the bound is defined.
const THREADS: u32 = 2;

/// Children per second.
#[derive(Debug, Clone, Copy)]
pub struct B2 {
    /// Children that were started, read and waited for.
    pub children: u32,
    /// In this time.
    pub elapsed: Duration,
}

impl B2 {
    /// Children per second of both threads together.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.children) / self.elapsed.as_secs_f64()
    }
}

/// Measures B2 over `count` children, with their directories in `directory`.
///
/// # Errors
/// When a directory, pipe or process can't be made.
pub fn measure(count: u32, directory: &Path) -> io::Result<B2> {
    let begun = Instant::now();
    let each = count / THREADS;
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || run_children(thread, each, directory))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => Err(io::Error::other("a measuring thread panicked")),
        })
    })?;
    Ok(B2 { children: each * THREADS, elapsed: begun.elapsed() })
}

fn run_children(thread: u32, count: u32, parent: &Path) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let mut starter = Starter::new();
    let mut room = [0; 4096];
    for number in 0..count {
        let directory = parent.join(format!("{thread}-{number}"));
        fs::create_dir(&directory)?;
        let name = CString::new(directory.as_os_str().as_bytes())?;
        let (mut stdout, stdout_writer) = io::pipe()?;
        let (mut stderr, stderr_writer) = io::pipe()?;
        let writers: [OwnedFd; 2] = [stdout_writer.into(), stderr_writer.into()];
        let pid = starter.start(Some(Setting {
            directory: &name,
            stdio: [null.as_raw_fd(), writers[0].as_raw_fd(), writers[1].as_raw_fd()],
        }))?;
        drop(writers);
        while stdout.read(&mut room)? > 0 {}
        while stderr.read(&mut room)? > 0 {}
        wait(pid)?;
        fs::remove_dir(&directory)?;
    }
    Ok(())
}
