//! What jobs changed, unpacked beside whoever ran them.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use executr_api::RunJobView;
use executr_coordinator::TenantClient;
use executr_spec::RunId;
use executr_spec::workflow::RunPlan;
use executr_tree::wire::{self, RemoteBlobs, UserBlobs};
use executr_tree::{BlobDir, BlobSource as _, Unpacked, unpack_modified};

use super::here::told;
use super::{load, transfer, watch};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{ComingBack, TREES};

/// So many deleted paths are named.
const NAMED: usize = 5;

/// What a plan's jobs bring back into the current directory, by the names of artifacts.
pub(super) fn of(plan: &RunPlan) -> Result<BTreeMap<String, ComingBack>> {
    let modified = plan.jobs.iter().filter_map(|job| job.spec.workflow.as_ref()?.modified.as_ref());
    let wanted = modified.filter_map(|modified| Some((modified, modified.to.as_ref()?)));
    wanted
        .map(|(modified, to)| {
            let directory = load::absolute(Path::new(to))?;
            Ok((modified.name.clone(), ComingBack { directory, archive: modified.archive }))
        })
        .collect()
}

/// Unpacks what the jobs of a run have made of it, in the order of its plan.
pub(super) async fn bring_back(
    client: &TenantClient,
    run: RunId,
    wanted: &BTreeMap<String, ComingBack>,
    data: &Path,
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    for job in watch::jobs(client, run).await.map_err(told)? {
        for artifact in &job.artifacts {
            if let Some(wanted) = wanted.get(&artifact.name) {
                let unpacked = unpack(client, artifact.tree, wanted, data).await?;
                tell(&job, wanted, &unpacked);
            }
        }
    }
    Ok(())
}

async fn unpack(
    client: &TenantClient,
    tree: executr_spec::Digest,
    wanted: &ComingBack,
    data: &Path,
) -> Result<Unpacked> {
    let remote: Arc<dyn RemoteBlobs> = Arc::new(UserBlobs(Arc::new(client.clone())));
    let blobs = BlobDir::open(data.join(TREES)).map_err(|error| Failure::new(Exit::FAILURE, error))?;
    let fetched = wire::fetch(&remote, &blobs, tree, &|_| ()).await;
    let fetched = fetched.map_err(|error| transfer::failed(error, &told))?;
    let wanted = wanted.clone();
    let unpacking = tokio::task::spawn_blocking(move || {
        let missing = || Failure::doing("unpack modified files", "the archive isn't there");
        let (_, file) = fetched.manifest.files().next().ok_or_else(missing)?;
        let extent = fetched.manifest.extent(file).ok_or_else(missing)?;
        let blob = blobs.open_blob(extent.blob).map_err(|error| Failure::doing("read modified files", error))?;
        let archive = blob.ok_or_else(missing)?.take(extent.length);
        unpack_modified(archive, wanted.archive, &wanted.directory).map_err(|error| {
            Failure::doing(format!("unpack modified files into {}", wanted.directory.display()), error)
        })
    });
    unpacking.await.map_err(|error| Failure::doing("unpack modified files", error))?
}

fn tell(job: &RunJobView, wanted: &ComingBack, unpacked: &Unpacked) {
    let mut text = format!(
        "{}: {} modified file{} of {}",
        wanted.directory.display(),
        unpacked.files,
        if unpacked.files == 1 { "" } else { "s" },
        job.name
    );
    if !unpacked.deleted.is_empty() {
        let named: Vec<_> = unpacked.deleted.iter().take(NAMED).map(|path| path.display().to_string()).collect();
        let more = if unpacked.deleted.len() > NAMED { ", …" } else { "" };
        text.push_str(&format!("; deleted there, not here: {}{more}", named.join(", ")));
    }
    drop(writeln!(io::stderr(), "{text}"));
}
