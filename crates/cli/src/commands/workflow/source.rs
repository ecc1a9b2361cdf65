//! The repository, as a tree where the run will be: only what isn't there yet is sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use executr_api::{ApiError, Client, MAX_ASKED_BLOBS};
use executr_spec::Digest;
use executr_spec::workflow::{RepositoryCopy, RunPlan};
use executr_tree::{LooseBlob, Snapshot, SnapshotOptions, snapshot};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;

use super::load::Loaded;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::make_directory;
use crate::show::{Progress, amount};

/// So many blobs are sent at a time.
const AT_ONCE: usize = 4;
/// Bytes read of a file at a time.
const PIECE: usize = 256 << 10;
/// Without a repository's rules about what to leave out, more than this is rather a mistake.
const MOST_WITHOUT_GIT: u64 = 1 << 30;

/// The plan, after its source tree was made and sent, if any job wants one.
pub(super) async fn with_source(
    mut loaded: Loaded,
    client: &dyn Client,
    data: &Path,
    told: &dyn Fn(ApiError) -> Failure,
) -> Result<RunPlan> {
    // What is wrong with it is told before anything is read.
    loaded.plan()?;
    if loaded.copies != RepositoryCopy::Nothing {
        let copy_git = loaded.copies == RepositoryCopy::FilesAndGit;
        let snapshot = Arc::new(take(loaded.repository.clone(), copy_git, data).await?);
        send(&snapshot, client).await.map_err(told)?;
        loaded.options.source = Some(snapshot.digest());
    }
    loaded.plan()
}

async fn take(repository: PathBuf, copy_git: bool, data: &Path) -> Result<Snapshot> {
    let notes = data.join("snapshots");
    make_directory(&notes)?;
    let git = repository.join(".git").exists();
    let options = SnapshotOptions {
        named: false,
        git,
        copy_git,
        excludes: excludes(),
        stat_cache: Some(notes.join(Digest::of(repository.as_os_str().as_encoded_bytes()).to_string())),
    };
    let shown = repository.display().to_string();
    let taken = tokio::task::spawn_blocking(move || snapshot(&repository, &options)).await;
    let snapshot = taken
        .map_err(|error| Failure::doing("look at the repository", error))?
        .map_err(|error| Failure::new(Exit::FAILURE, error).remedy("jobs with `copy_repo: false` need no copy"))?;
    let size = snapshot.manifest().size();
    if !git && size > MOST_WITHOUT_GIT {
        return Err(Failure::usage(format!("{shown} is no git repository and holds {}", amount(size)))
            .remedy("run in a smaller directory, make it a repository, or write `copy_repo: false` in its executor"));
    }
    Ok(snapshot)
}

/// Where git looks for what this user never wants in a repository.
fn excludes() -> Vec<PathBuf> {
    let configuration = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let configuration = configuration.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    configuration.into_iter().map(|path| path.join("git/ignore")).filter(|path| path.exists()).collect()
}

async fn send(snapshot: &Arc<Snapshot>, client: &dyn Client) -> std::result::Result<(), ApiError> {
    let mut blobs = snapshot.manifest().blobs();
    blobs.push(snapshot.digest());
    let mut missing = Vec::new();
    for some in blobs.chunks(MAX_ASKED_BLOBS) {
        missing.extend(client.missing_blobs(some.to_vec()).await?);
    }
    if missing.is_empty() {
        return Ok(());
    }
    // The manifest last: where it is, the rest is.
    let whole = snapshot.digest();
    missing.retain(|digest| *digest != whole);
    let loose: Vec<LooseBlob> = missing.into_iter().filter_map(|digest| snapshot.blob(digest)).collect();
    let progress = Progress::of_bytes("sending the repository", loose.iter().map(LooseBlob::size).sum());
    let sent = stream::iter(loose).map(|blob| {
        let progress = &progress;
        async move {
            let (digest, size) = (blob.digest(), blob.size());
            client.put_blob(digest, Box::pin(pieces(blob))).await?;
            progress.advance(size);
            Ok::<_, ApiError>(())
        }
    });
    sent.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let encoded = Bytes::copy_from_slice(snapshot.encoded());
    client.put_blob(whole, Box::pin(stream::iter([Ok(encoded)]))).await
}

/// A blob's bytes, read on another thread as they are wanted.
fn pieces(blob: LooseBlob) -> impl futures_util::Stream<Item = std::result::Result<Bytes, ApiError>> + Send {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let told = |error: std::io::Error| ApiError::new(executr_api::ErrorCode::BadRequest, error.to_string());
        let mut reader = match blob.open() {
            Ok(reader) => reader,
            Err(error) => return drop(sender.blocking_send(Err(told(error)))),
        };
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            match reader.by_ref().take(PIECE as u64).read_to_end(&mut piece) {
                Ok(0) => return,
                Ok(_) if sender.blocking_send(Ok(piece.into())).is_ok() => {}
                Ok(_) => return,
                Err(error) => return drop(sender.blocking_send(Err(told(error)))),
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|piece| (piece, receiver)) })
}
