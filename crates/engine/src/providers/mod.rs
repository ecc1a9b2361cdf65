//! Variables that are not written in the file: each source is asked once a run, by the worker.
//!
//! - [`files`]: files of variables, and where their paths lead;
//! - [`assignments`]: `KEY=value` lines as `.env` files have them, and `export KEY="value"` lines of programs;
//! - [`program`]: programs that print them, and `sops`;
//! - [`asked`]: what was asked already, by run.
//!
//! Paths count from the tree that the run starts from, or from the repository of who runs `executr run`. What comes from a
//! file, from `sops` or from a program is secret; what stands in the workflow itself is not.

mod asked;
mod assignments;
mod files;
mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executr_spec::workflow::Provider;
use executr_tree::BlobDir;
use executr_tree::wire::Fetched;
use thiserror::Error;

pub use asked::Providers;

use crate::host::{HostContext, Policy};

/// The most bytes of a file of variables, and of what a program prints.
const MOST: u64 = 1 << 20;

/// What a source of variables says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provided {
    pub(crate) variables: BTreeMap<String, String>,
    /// Whether the values are to be masked.
    pub(crate) secret: bool,
}

/// Why a source of variables says nothing. The run fails.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("env_from {provider}: {problem}")]
pub(crate) struct ProviderError {
    provider: String,
    problem: String,
}

impl ProviderError {
    pub(crate) fn new(provider: &Provider, problem: impl Into<String>) -> Self {
        Self { provider: label(provider), problem: problem.into() }
    }
}

/// The variables in the text of a `.env` file.
///
/// # Errors
/// The first line that is none, by its number.
pub fn variables_in(text: &str) -> Result<BTreeMap<String, String>, String> {
    assignments::parse(text, assignments::Style::DotEnv)
}

/// Where a source is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) host: &'a HostContext,
    pub(crate) policy: &'a Policy,
    pub(crate) root: Root<'a>,
}

/// What paths count from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Root<'a> {
    /// The repository of this worker's own user.
    Own(&'a Path),
    /// The tree that the run starts from.
    Tree(&'a Arc<Fetched>, &'a BlobDir),
    /// A copy of that tree, made for one source.
    Copy(&'a Path),
    /// There is none.
    Nothing,
}

impl<'a> Root<'a> {
    /// Where programs start.
    fn directory(self) -> Option<&'a Path> {
        match self {
            Self::Own(directory) | Self::Copy(directory) => Some(directory),
            Self::Tree(..) | Self::Nothing => None,
        }
    }
}

/// What people call it.
fn label(provider: &Provider) -> String {
    match provider {
        Provider::File { path, .. } => format!("file `{path}`"),
        Provider::Sops { file, .. } => format!("sops `{file}`"),
        Provider::Static(_) => "static".to_owned(),
        Provider::Required(_) => "required".to_owned(),
        Provider::Command(argv) => format!("command `{}`", argv.first().map_or("", String::as_str)),
    }
}

/// Asks a source. `Required` says nothing; whether what it names is there is seen where all variables are.
pub(crate) async fn ask(provider: &Provider, asking: Asking<'_>) -> Result<Provided, ProviderError> {
    let wrong = |problem: String| ProviderError::new(provider, problem);
    match provider {
        Provider::Static(variables) => Ok(Provided { variables: variables.clone(), secret: false }),
        Provider::Required(_) => Ok(Provided::default()),
        Provider::File { path, required } => {
            let Some(text) = read(path, *required, asking).await.map_err(wrong)? else {
                return Ok(Provided::default());
            };
            let variables = assignments::parse(&text, assignments::Style::DotEnv).map_err(wrong)?;
            Ok(Provided { variables, secret: true })
        }
        Provider::Sops { file, format, required } => {
            if !asking.policy.providers {
                return Err(wrong(NOT_ALLOWED.to_owned()));
            }
            let Some(path) = locate(file, *required, asking).map_err(wrong)? else { return Ok(Provided::default()) };
            let variables = program::sops(&path, *format, asking).await.map_err(wrong)?;
            Ok(Provided { variables, secret: true })
        }
        Provider::Command(argv) => {
            if !asking.policy.providers {
                return Err(wrong(NOT_ALLOWED.to_owned()));
            }
            let printed = program::run(argv, asking).await.map_err(wrong)?;
            let variables = assignments::parse(&printed, assignments::Style::Exports).map_err(wrong)?;
            Ok(Provided { variables, secret: true })
        }
    }
}

const NOT_ALLOWED: &str = "this worker runs no programs for variables; start it with `--allow providers`";

/// Reads a file of variables; `None` when it isn't there and needn't be.
async fn read(path: &str, required: bool, asking: Asking<'_>) -> Result<Option<String>, String> {
    let wanted = path.to_owned();
    let reading = match asking.root {
        Root::Nothing => return Err(files::no_tree()),
        Root::Own(repository) => {
            let path = repository.join(path);
            tokio::task::spawn_blocking(move || files::read_own(&path))
        }
        // It is asked for what needs a copy only.
        Root::Copy(copy) => {
            let copy = copy.to_owned();
            tokio::task::spawn_blocking(move || match files::in_copy(&copy, &wanted)? {
                Some(path) => files::read_own(&path),
                None => Ok(None),
            })
        }
        Root::Tree(tree, blobs) => {
            let (tree, blobs) = (Arc::clone(tree), blobs.clone());
            tokio::task::spawn_blocking(move || files::read_from(&tree.manifest, &blobs, &wanted))
        }
    };
    match reading.await.map_err(|error| error.to_string())?? {
        None if required => Err(files::not_there(path)),
        text => Ok(text),
    }
}

/// Where a file is that a program reads; `None` when it isn't there and needn't be.
fn locate(path: &str, required: bool, asking: Asking<'_>) -> Result<Option<PathBuf>, String> {
    let found = match asking.root {
        Root::Nothing | Root::Tree(..) => return Err(files::no_tree()),
        // The user's own machine and repository: nothing to keep them from.
        Root::Own(repository) => Some(repository.join(path)).filter(|path| path.exists()),
        Root::Copy(copy) => files::in_copy(copy, path)?,
    };
    if found.is_none() && required { Err(files::not_there(path)) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
