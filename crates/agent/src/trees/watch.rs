//! What is touched, while it is.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use executr_agent_protocol::v1::{Failure, WatchResponse};
use executr_tree::{Told, Watcher};

use super::{Notes, failure};

/// How often it is looked whether the caller is still there.
const PATIENCE: Duration = Duration::from_millis(500);
/// What is touched within so long is told together.
const TOGETHER: Duration = Duration::from_millis(50);
/// What the kernel doesn't tell is looked for so often at most.
const RESCAN: Duration = Duration::from_secs(2);

/// Tells what is touched until it is to stop.
pub(crate) fn watch(
    stopped: &AtomicBool,
    directory: &Path,
    notes: &Notes,
    tell: impl Fn(WatchResponse) -> Result<(), ()>,
) -> Result<(), Failure> {
    let mut watcher = Watcher::new(directory).map_err(|error| failure(&error, Some(&error)))?;
    if tell(WatchResponse::default()).is_err() {
        return Ok(());
    }
    while !stopped.load(Ordering::Relaxed) {
        let told = match watcher.next(PATIENCE).map_err(|error| failure(&error, Some(&error)))? {
            None => continue,
            Some(Told::Touched(paths)) => {
                std::thread::sleep(TOGETHER);
                let bytes = |path: PathBuf| path.into_os_string().into_vec().into();
                WatchResponse { paths: paths.into_iter().map(bytes).collect(), ..WatchResponse::default() }
            }
            Some(Told::Rescan) => {
                std::thread::sleep(RESCAN);
                let changes = notes.peek(directory);
                let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec().into();
                let paths = changes.iter().flat_map(|changes| changes.told()).map(|change| bytes(&change.path));
                WatchResponse { paths: paths.collect(), missed: changes.is_none(), failure: None }
            }
        };
        if told == WatchResponse::default() {
            continue;
        }
        if tell(told).is_err() {
            break;
        }
    }
    Ok(())
}
