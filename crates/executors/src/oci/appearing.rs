//! Something that is about to be put into a directory: looked for when the kernel says so, and every now and then where it
//! can't.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A watch on a directory. There may be none: a user can have only so many.
pub(super) struct Appearing(Option<AsyncFd<OwnedFd>>);

impl Appearing {
    /// Watches from now on.
    pub(super) fn in_directory(path: &Path) -> Self {
        let watch = || {
            let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
            inotify::add_watch(&watch, path, WatchFlags::MOVED_TO | WatchFlags::CREATE).ok()?;
            // SAFETY: it owns its descriptor, and gives the same one for as long as it lives.
            unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }.ok()
        };
        Self(watch())
    }

    /// Waits until something was put there, or for `most`.
    pub(super) async fn next(&self, most: Duration) {
        let Some(watch) = &self.0 else { return tokio::time::sleep(most).await };
        if let Ok(Ok(mut ready)) = tokio::time::timeout(most, watch.readable()).await {
            // What it was doesn't matter: whoever waits looks for himself.
            while rustix::io::read(watch, &mut [0; 1024]).is_ok() {}
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_there_is_told_once() {
        let temp = tempfile::tempdir().unwrap();
        let appearing = Appearing::in_directory(temp.path());
        std::fs::write(temp.path().join("file"), "").unwrap();
        // Much longer than any test may take.
        appearing.next(Duration::from_secs(3600)).await;
        appearing.next(Duration::ZERO).await;
    }
}
