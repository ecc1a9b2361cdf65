//! `executr image build`

use std::io::{self, Write as _};
use std::sync::Arc;

use executr_images::{Changes, EngineAddress, LayerRecipe, Part, Progress, Recipe};

use super::{access, failure, store};
use crate::arguments::{ImageBuildArgs, Placed, Target};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::host;
use crate::show::{ImageProgress, amount};

pub(super) async fn build(arguments: ImageBuildArgs) -> Result<Exit> {
    let recipe = recipe(&arguments);
    let ImageBuildArgs { name, push, load, out, engine, registries, store: place, .. } = arguments;
    if recipe.base.is_none() && recipe.layers.is_empty() {
        return Err(Failure::usage("there is nothing to build an image of")
            .remedy("name what is in it: --layer DIR, --file FILE:/TARGET, --program FILE, or --from IMAGE"));
    }
    // Asked for before the work begins.
    let engine = load.then(|| engine_for(engine)).transpose()?;
    let store = store(&place)?;
    let access = access(registries);
    let shown = Arc::new(ImageProgress::new(format!("building {name}")));
    let progress: Arc<dyn Progress> = Arc::clone(&shown) as _;
    let built = store.build(&name, &recipe, &access, &progress).await.map_err(|error| failure(&error))?;
    shown.say(&format!(
        "{name}: {} layers, {} of them as before, {}",
        built.layers,
        built.layers - recipe.layers.len() + built.reused,
        amount(built.bytes)
    ));
    for target in out {
        let (written, path) = match &target {
            Target::Layout(path) => (store.write_layout(&name, path, &access, &progress).await, path),
            Target::DockerArchive(path) => (store.write_docker_archive(&name, path, &access, &progress).await, path),
        };
        written.map_err(|error| failure(&error))?;
        shown.say(&format!("written to {}", path.display()));
    }
    if let Some(engine) = engine {
        store.load(&name, &engine, &access, &progress).await.map_err(|error| failure(&error))?;
        shown.say(&format!("loaded into the engine at {engine}"));
    }
    if push {
        let sent = store.push(&name, &name, &access, &progress).await.map_err(|error| failure(&error))?;
        shown.sent(&sent);
    }
    drop(progress);
    drop(shown);
    writeln!(io::stdout(), "{name}@sha256:{}", built.digest)?;
    Ok(Exit::SUCCESS)
}

fn recipe(arguments: &ImageBuildArgs) -> Recipe {
    let directory = |placed: &Placed| LayerRecipe {
        parts: vec![Part::Directory { from: placed.from.clone(), to: placed.to.clone() }],
    };
    let file = |placed: &Placed| Part::File { from: placed.from.clone(), to: placed.to.clone(), mode: placed.mode };
    let program = |placed: &Placed| Part::Program { from: placed.from.clone(), to: placed.to.clone() };
    let files: Vec<_> = arguments.files.iter().map(file).collect();
    let programs: Vec<_> = arguments.programs.iter().map(program).collect();
    let together = [files, programs].into_iter().filter(|parts| !parts.is_empty()).map(|parts| LayerRecipe { parts });
    let entrypoint = match (&arguments.entrypoint[..], arguments.programs.first()) {
        ([], Some(program)) => Some(vec![program.to.clone()]),
        ([], None) => None,
        (words, _) => Some(words.to_vec()),
    };
    Recipe {
        base: arguments.from.clone(),
        layers: arguments.layers.iter().map(directory).chain(together).collect(),
        changes: Changes {
            user: arguments.user.clone(),
            env: arguments.env.clone(),
            workdir: arguments.workdir.clone(),
            entrypoint,
            command: (!arguments.command.is_empty()).then(|| arguments.command.clone()),
            labels: arguments.labels.iter().cloned().collect(),
        },
        compression: arguments.compression.into(),
    }
}

fn engine_for(named: Option<EngineAddress>) -> Result<EngineAddress> {
    let found = || host::engine_sockets().into_iter().find(|path| path.exists()).map(EngineAddress::Unix);
    named.or_else(found).ok_or_else(|| {
        Failure::new(Exit::FAILURE, "no container engine listens where they usually do").remedy(
            "start Docker or `podman system service`, or say where one listens: --engine unix:///run/docker.sock",
        )
    })
}
