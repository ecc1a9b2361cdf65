//! Variables that are not written in the file: each source is asked once a run, by the worker.
//!
//! - [`assignments`]: `KEY=value` lines as `.env` files have them, and `export KEY="value"` lines of programs;
//! - [`program`]: programs that print them, and `sops`;
//! - [`asked`]: what was asked already, by run.
//!
//! Relative paths count from the run's source tree, or from the repository of who runs `executr run`. What comes from a
//! file, from `sops` or from a program is secret; what stands in the workflow itself is not.

mod asked;
mod assignments;
mod program;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use executr_spec::workflow::Provider;
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
    pub(crate) policy: Policy,
    /// The repository, or a copy of it; `None` when the job has none.
    pub(crate) root: Option<&'a Path>,
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
async fn ask(provider: &Provider, asking: Asking<'_>) -> Result<Provided, ProviderError> {
    let wrong = |problem: String| ProviderError::new(provider, problem);
    match provider {
        Provider::Static(variables) => Ok(Provided { variables: variables.clone(), secret: false }),
        Provider::Required(_) => Ok(Provided::default()),
        Provider::File { path, required } => {
            let Some(text) = read(path, *required, asking).map_err(wrong)? else { return Ok(Provided::default()) };
            let variables = assignments::parse(&text, assignments::Style::DotEnv).map_err(wrong)?;
            Ok(Provided { variables, secret: true })
        }
        Provider::Sops { file, format, required } => {
            if !asking.policy.providers {
                return Err(wrong(NOT_ALLOWED.to_owned()));
            }
            let path = resolve(file, asking).map_err(wrong)?;
            if !path.exists() {
                return if *required { Err(wrong(not_there(&path))) } else { Ok(Provided::default()) };
            }
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

fn not_there(path: &Path) -> String {
    format!("{} isn't there (files that git ignores are not part of a submitted run)", path.display())
}

/// Where a path of a provider leads. Never out of the repository: what it names is read on somebody's worker.
fn resolve(path: &str, asking: Asking<'_>) -> Result<PathBuf, String> {
    let inside = Path::new(path)
        .components()
        .all(|component| matches!(component, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if asking.host.repository.is_some() && Path::new(path).is_absolute() {
        return Ok(PathBuf::from(path));
    }
    let Some(root) = asking.root else {
        return Err("the job has no copy of the repository; give it one with `copy_repo: true`".to_owned());
    };
    // The user's own machine and repository: nothing to keep them from.
    if inside || asking.host.repository.is_some() {
        return Ok(root.join(path));
    }
    Err("leads out of the repository; on a worker only files of the repository are read".to_owned())
}

fn read(path: &str, required: bool, asking: Asking<'_>) -> Result<Option<String>, String> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = resolve(path, asking)?;
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let canonical = match path.canonicalize() {
        Ok(canonical) => canonical,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_there(&path)),
        Err(error) => return Err(failed(error)),
    };
    // A link in the tree that was submitted may point anywhere on the worker.
    if asking.host.repository.is_none() {
        let root = asking.root.and_then(|root| root.canonicalize().ok());
        if !root.is_some_and(|root| canonical.starts_with(root)) {
            return Err("is a link that leads out of the repository".to_owned());
        }
    }
    let mut text = String::new();
    // A pipe in the file's place must not hold the worker up.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&canonical);
    let file = file.map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    file.take(MOST + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MOST {
        return Err(format!("{} has more than {MOST} bytes", path.display()));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests;
