//! `executr artifacts`

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executr_api::{ApiError, ArtifactQuery, ArtifactView, RunClient};
use executr_coordinator::{Coordinator, TenantClient, Unobserved};
use executr_spec::{RunId, Tenant};
use executr_tree::wire::{self, RemoteBlobs, UserBlobs};
use executr_tree::{BlobDir, BlobDirError, Existing, Manifest, export, materialise};

use super::transfer;

use crate::arguments::{ArtifactPlace, ArtifactsCommand, OutputForm};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{KeptRuns, TREES, data_directory, open_run, rules_here};
use crate::show::{Align, Column, Progress, Table, ago, amount, now, write_json};

pub(in crate::commands) async fn artifacts(command: ArtifactsCommand) -> Result<Exit> {
    match command {
        ArtifactsCommand::List { run, output, place } => list(run, output, &place).await,
        ArtifactsCommand::Get { run, name, to, tar, place } => {
            let to = to.unwrap_or_else(|| PathBuf::from("."));
            get(run, &name, &to, tar.as_deref(), &place).await
        }
    }
}

/// Where artifacts are: a server, or a run's own database.
enum Source {
    There(executr_client::HttpClient),
    Here(Box<TenantClient>),
}

impl Source {
    async fn of(run: Option<RunId>, place: &ArtifactPlace) -> Result<Self> {
        let data = data_directory(place.data_dir.clone())?;
        let kept = KeptRuns::of(&data);
        let Some(run) = run.filter(|run| place.here || kept.has(*run)) else {
            return connect(&place.connection).map(Self::There);
        };
        let (directory, _) = kept.open(run)?;
        let store = open_run(&data, directory.path()).await?;
        let coordinator = Coordinator::start(store, rules_here(), Arc::new(Unobserved))
            .await
            .map_err(|error| Failure::api(&error, None))?;
        Ok(Self::Here(Box::new(coordinator.client(Tenant::default()))))
    }

    fn client(&self) -> &dyn RunClient {
        match self {
            Self::There(client) => client,
            Self::Here(client) => client.as_ref(),
        }
    }

    fn blobs(&self) -> Arc<dyn RemoteBlobs> {
        match self {
            Self::There(client) => Arc::new(UserBlobs(Arc::new(client.clone()))),
            Self::Here(client) => Arc::new(UserBlobs(Arc::new(client.as_ref().clone()))),
        }
    }

    fn told(&self, error: &ApiError) -> Failure {
        match self {
            Self::There(client) => Failure::api(error, Some(client.server())),
            Self::Here(_) => Failure::api(error, None),
        }
    }
}

async fn list(run: Option<RunId>, output: OutputForm, place: &ArtifactPlace) -> Result<Exit> {
    let artifacts = if run.is_none() && place.here {
        let kept = KeptRuns::of(&data_directory(place.data_dir.clone())?);
        let mut artifacts = Vec::new();
        for run in
            kept.list().into_iter().filter(|kept| !kept.is_open).flat_map(|kept| kept.note.runs.into_iter().rev())
        {
            artifacts.extend(of_run(Some(run.id), place).await?);
        }
        artifacts
    } else {
        of_run(run, place).await?
    };
    if output == OutputForm::Json {
        write_json(&mut io::stdout().lock(), &artifacts)?;
        return Ok(Exit::SUCCESS);
    }
    let mut table = Table::new(&[
        Column::new("RUN", Align::Left),
        Column::shrinking("WORKFLOW"),
        Column::shrinking("JOB"),
        Column::new("ARTIFACT", Align::Left),
        Column::new("FILES", Align::Right),
        Column::new("SIZE", Align::Right),
        Column::new("CREATED", Align::Left),
    ]);
    for view in &artifacts {
        table.row(vec![
            view.run.into(),
            view.workflow.as_str().into(),
            view.job.as_str().into(),
            view.artifact.name.as_str().into(),
            view.artifact.files.into(),
            amount(view.artifact.size).into(),
            ago(view.created_at, now()).into(),
        ]);
    }
    table.print()?;
    Ok(Exit::SUCCESS)
}

async fn of_run(run: Option<RunId>, place: &ArtifactPlace) -> Result<Vec<ArtifactView>> {
    let source = Source::of(run, place).await?;
    let query = ArtifactQuery { run, limit: None };
    source.client().artifacts(query).await.map_err(|error| source.told(&error))
}

async fn get(run: RunId, name: &str, to: &Path, tar: Option<&Path>, place: &ArtifactPlace) -> Result<Exit> {
    let source = Source::of(Some(run), place).await?;
    let told = |error| source.told(&error);
    let query = ArtifactQuery { run: Some(run), limit: None };
    let artifacts = source.client().artifacts(query).await.map_err(told)?;
    let Some(found) = artifacts.iter().find(|view| view.artifact.name == name) else {
        let names: Vec<&str> = artifacts.iter().map(|view| view.artifact.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Failure::new(Exit::NOT_FOUND, format!("run {run} made no artifact `{name}`"))
            .remedy(format!("what it made: {there}")));
    };
    let blobs = BlobDir::open(data_directory(place.data_dir.clone())?.join(TREES)).map_err(unkept)?;
    let progress = Progress::of_things("getting the artifact", 0);
    let watch = |at: wire::Progress| progress.reach(at.blobs, at.of_blobs);
    let fetched = wire::fetch(&source.blobs(), &blobs, found.artifact.tree, &watch).await;
    let fetched = fetched.map_err(|error| transfer::failed(error, &told))?;
    drop(progress);
    // What a tree that is one file is called.
    let file_name = PathBuf::from(name);
    match tar {
        None => {
            let to = if fetched.manifest.is_single() { to.join(&file_name) } else { to.to_owned() };
            let to = to.as_path();
            if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent)
                    .map_err(|error| Failure::doing(format!("make {}", parent.display()), error))?;
            }
            materialise(&fetched.manifest, &blobs, to, Existing::Refuse).map_err(|error| {
                Failure::new(Exit::FAILURE, error).remedy("name another directory with --to, or remove what is there")
            })?;
            let (files, size) = (found.artifact.files, amount(found.artifact.size));
            let made = made(&fetched.manifest, to);
            drop(writeln!(
                io::stderr(),
                "{}: {files} file{}, {size}",
                made.display(),
                if files == 1 { "" } else { "s" }
            ));
        }
        Some(path) if path == Path::new("-") => {
            archive(fetched.manifest.clone(), blobs, file_name, io::stdout()).await?
        }
        Some(path) => {
            let file = File::create(path).map_err(|error| Failure::doing(format!("make {}", path.display()), error))?;
            archive(fetched.manifest.clone(), blobs, file_name, file).await?;
        }
    }
    Ok(Exit::SUCCESS)
}

/// What a tree is to its user once it is below `to`: the one thing in it, as a rule.
fn made(manifest: &Manifest, to: &Path) -> PathBuf {
    let mut roots: Vec<_> = manifest.entries().iter().filter_map(|entry| entry.path.components().next()).collect();
    roots.dedup();
    match roots[..] {
        [root] => to.join(root),
        _ => to.to_owned(),
    }
}

fn unkept(error: BlobDirError) -> Failure {
    Failure::new(Exit::FAILURE, error)
}

/// Writes an archive in a thread that may wait.
async fn archive(manifest: Manifest, blobs: BlobDir, name: PathBuf, to: impl Write + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(move || export(&manifest, &blobs, &name, to))
        .await
        .map_err(|error| Failure::doing("write the archive", error))?
        .map_err(|error| Failure::new(Exit::FAILURE, error))
}
