//! `executr artifacts`

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executr_api::{ApiError, ArtifactQuery, ArtifactView, Client, RunClient};
use executr_coordinator::{Coordinator, Options, TenantClient, Unobserved};
use executr_spec::{Digest, RunId, Tenant};
use executr_tree::{BlobDir, BlobDirError, Existing, Manifest, materialise};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::arguments::{ArtifactPlace, ArtifactsCommand, DatabasePlace, OutputForm};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{KeptRuns, data_directory, open};
use crate::show::{Align, Column, Progress, Table, ago, amount, now, write_json};

/// So many blobs are fetched at a time.
const AT_ONCE: usize = 4;

pub(in crate::commands) async fn artifacts(command: ArtifactsCommand) -> Result<Exit> {
    match command {
        ArtifactsCommand::List { run, output, place } => list(run, output, &place).await,
        ArtifactsCommand::Get { run, name, to, tar, place } => {
            let to = to.unwrap_or_else(|| PathBuf::from(&name));
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
        let kept = KeptRuns::of(&data_directory(place.data_dir.clone())?);
        let Some(run) = run.filter(|run| place.here || kept.has(*run)) else {
            return connect(&place.connection).map(Self::There);
        };
        let (directory, _) = kept.open(run)?;
        let store = open(&DatabasePlace::Embedded(directory.path().to_owned())).await?;
        let coordinator = Coordinator::start(store, Options::default(), Arc::new(Unobserved))
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
    if tar.is_none() && to.exists() {
        return Err(Failure::usage(format!("{} is there already", to.display()))
            .remedy("name another place with --to, or remove it"));
    }
    let blobs = BlobDir::open(data_directory(place.data_dir.clone())?.join("blobs")).map_err(unkept)?;
    fetch(source.client(), &blobs, found.artifact.tree).await.map_err(told)?.map_err(unkept)?;
    let encoded = std::fs::read(blobs.path(found.artifact.tree))
        .map_err(|error| Failure::doing("read the artifact's tree", error))?;
    let manifest = Manifest::parse(&encoded).map_err(|error| Failure::new(Exit::FAILURE, error))?;
    let progress = Progress::of_things("getting the artifact", manifest.blobs().len() as u64);
    let fetched = stream::iter(manifest.blobs()).map(|digest| {
        let (progress, blobs, source) = (&progress, &blobs, &source);
        async move {
            fetch(source.client(), blobs, digest).await.map_err(told)?.map_err(unkept)?;
            progress.advance(1);
            Ok::<_, Failure>(())
        }
    });
    fetched.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    drop(progress);
    match tar {
        None => {
            if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent)
                    .map_err(|error| Failure::doing(format!("make {}", parent.display()), error))?;
            }
            materialise(&manifest, &blobs, to, Existing::Refuse).map_err(|error| Failure::new(Exit::FAILURE, error))?;
            drop(writeln!(
                io::stderr(),
                "{}: {} files, {}",
                to.display(),
                found.artifact.files,
                amount(found.artifact.size)
            ));
        }
        Some(path) if path == Path::new("-") => archive(&manifest, &blobs, io::stdout().lock())?,
        Some(path) => {
            let file = File::create(path).map_err(|error| Failure::doing(format!("make {}", path.display()), error))?;
            archive(&manifest, &blobs, file)?;
        }
    }
    Ok(Exit::SUCCESS)
}

/// Brings a blob unless it is there.
async fn fetch(
    client: &dyn Client,
    blobs: &BlobDir,
    digest: Digest,
) -> std::result::Result<std::result::Result<(), BlobDirError>, ApiError> {
    if blobs.path(digest).exists() {
        return Ok(Ok(()));
    }
    let mut partial = match blobs.bring(digest) {
        Ok(Some(partial)) => partial,
        // Another process brings the same; it is verified when it is used.
        Ok(None) => return Ok(Ok(())),
        Err(error) => return Ok(Err(error)),
    };
    let mut bytes = client.read_blob(digest, partial.length()).await?;
    while let Some(piece) = bytes.next().await {
        if let Err(error) = partial.append(&piece?) {
            return Ok(Err(error));
        }
    }
    Ok(partial.commit())
}

fn unkept(error: BlobDirError) -> Failure {
    Failure::new(Exit::FAILURE, error)
}

fn archive(_: &Manifest, _: &BlobDir, _: impl Write) -> Result<()> {
    Err(Failure::usage("not yet"))
}
