//! `executr image`

mod build;
mod list;
mod transfer;

use executr_images::{Access, CredentialSource, ImageError, ImageStore, StoreOptions};

use crate::arguments::{ImageCommand, ImageStoreArgs, RegistryArgs};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::host;
use crate::services::{IMAGES, data_directory};

pub(super) async fn image(command: ImageCommand) -> Result<Exit> {
    match command {
        ImageCommand::Build(arguments) => build::build(*arguments).await,
        ImageCommand::Pull(arguments) => transfer::pull(*arguments).await,
        ImageCommand::Push(arguments) => transfer::push(*arguments).await,
        ImageCommand::List(arguments) => list::list(arguments),
        ImageCommand::Rm(arguments) => list::rm(&arguments),
    }
}

fn store(arguments: &ImageStoreArgs) -> Result<ImageStore> {
    let data = data_directory(arguments.data_dir.clone())?;
    ImageStore::open(data.join(IMAGES), StoreOptions::default()).map_err(|error| failure(&error))
}

/// What the flags say, over what logins have left.
fn access(arguments: RegistryArgs) -> Access {
    let variables = arguments.logins.into_iter().map(|login| {
        let named = [&login.username, &login.password];
        let values = named.into_iter().filter_map(|name| Some((name.clone(), host::variable(name)?))).collect();
        CredentialSource::Variables {
            registry: login.registry,
            username: login.username,
            password: login.password,
            values,
        }
    });
    let files = arguments.auth_files.into_iter().chain(host::registry_logins()).map(CredentialSource::File);
    Access {
        credentials: variables.chain(files).collect(),
        mirrors: arguments.mirrors,
        authorities: arguments.authorities,
        plain_http: arguments.plain_http,
    }
}

fn failure(error: &ImageError) -> Failure {
    let exit = match error {
        ImageError::Reference(_) | ImageError::Access(_) | ImageError::Build(_) => Exit::USAGE,
        ImageError::NotHere { .. } => Exit::NOT_FOUND,
        _ => Exit::FAILURE,
    };
    // What went wrong, and behind the last semicolon what to do.
    let text = error.to_string();
    match text.rsplit_once("; ") {
        Some((problem, remedy)) => Failure::new(exit, problem).remedy(remedy),
        None => Failure::new(exit, text),
    }
}
