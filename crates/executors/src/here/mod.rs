//! Job directories that are on this machine, whatever runs their steps: what goes into them and comes out of them.
//!
//! - [`placing`]: a tree that is being written into one;
//! - [`files`]: single files, each written anew;
//! - [`taking`]: trees made of what is in one;
//! - [`looks`]: what changed in one.
//!
//! Steps may have put a link in any place, and here it leads elsewhere than where they run: none is followed.

mod files;
mod looks;
mod placing;
mod taking;

use std::io;
use std::path::{Path, PathBuf};

use executr_tree::MaterialiseError;

pub(crate) use files::put_files;
pub(crate) use looks::{Looks, put_watched};
pub(crate) use placing::{Writing, make_below};
pub(crate) use taking::take;

use crate::contract::ExecutorError;

/// Runs what waits for files on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ExecutorError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ExecutorError::Broken)
}

fn cannot_make(path: &Path, source: io::Error) -> ExecutorError {
    MaterialiseError::Io { action: "make", path: PathBuf::from(path), source }.into()
}
