//! The repository, as a tree where the run will be: only what isn't there yet is sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use executr_api::{ApiError, Client};
use executr_spec::Digest;
use executr_spec::workflow::{RepositoryCopy, RunPlan};
use executr_tree::wire::{self, RemoteBlobs, UserBlobs};
use executr_tree::{BlobSource, Snapshot, SnapshotOptions, snapshot};

use super::load::Loaded;
use super::transfer;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::make_directory;
use crate::show::{Progress, amount};

/// Without a repository's rules about what to leave out, more than this is rather a mistake.
const MOST_WITHOUT_GIT: u64 = 1 << 30;

/// The plan, after its source tree was made and sent, if any job wants one, or the place where it runs can't look for
/// anything in the repository itself.
pub(super) async fn with_source(
    mut loaded: Loaded,
    client: impl Client + 'static,
    data: &Path,
    is_elsewhere: bool,
    told: &(dyn Fn(ApiError) -> Failure + Sync),
) -> Result<RunPlan> {
    // What is wrong with it is told before anything is read.
    loaded.plan()?;
    if loaded.copies != RepositoryCopy::Nothing || is_elsewhere && loaded.asks_repository {
        let copy_git = loaded.copies == RepositoryCopy::FilesAndGit;
        let snapshot = take(loaded.repository.clone(), copy_git, data).await?;
        let (tree, blobs) = (snapshot.digest(), snapshot.manifest().blobs());
        let (remote, snapshot): (Arc<dyn RemoteBlobs>, Arc<dyn BlobSource>) =
            (Arc::new(UserBlobs(Arc::new(client))), Arc::new(snapshot));
        let progress = Progress::of_things("sending the repository", blobs.len() as u64);
        let watch = |at: wire::Progress| progress.reach(at.blobs, at.of_blobs);
        let sent = wire::push(&remote, &snapshot, tree, blobs, &watch).await;
        sent.map_err(|error| transfer::failed(error, told))?;
        loaded.options.source = Some(tree);
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
        within: None,
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
