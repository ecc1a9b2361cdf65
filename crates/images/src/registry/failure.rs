//! What went wrong at a registry.

use std::error::Error;

use oci_client::errors::{OciDistributionError, OciErrorCode};
use thiserror::Error;

/// A registry, and all that stand in for it, don't do what was asked.
#[derive(Debug, Error)]
#[error("{registry} doesn't {asked}: {why}; {remedy}")]
pub struct RegistryError {
    /// The registry's host, or the mirror's.
    pub registry: String,
    /// What was asked: `give the manifest of …`.
    pub asked: String,
    /// What it said.
    pub why: String,
    /// What its user can do.
    pub remedy: String,
    /// It may do so when asked again.
    pub(crate) is_passing: bool,
}

impl RegistryError {
    pub(crate) fn new(registry: &str, asked: &str, error: &OciDistributionError) -> Self {
        let why = chain(error);
        let (remedy, is_passing) = remedy(registry, error, &why);
        Self { registry: registry.to_owned(), asked: asked.to_owned(), why, remedy, is_passing }
    }

    /// Something it said that it may not say.
    pub(crate) fn nonsense(registry: &str, asked: &str, why: String) -> Self {
        let remedy = "it, or something before it, changes what it gives: tell who runs it".to_owned();
        Self { registry: registry.to_owned(), asked: asked.to_owned(), why, remedy, is_passing: false }
    }

    /// The connection broke amid an answer.
    pub(crate) fn cut(registry: &str, asked: &str, error: &dyn Error) -> Self {
        let remedy = "look whether the network holds, and try again".to_owned();
        Self { registry: registry.to_owned(), asked: asked.to_owned(), why: chain(error), remedy, is_passing: true }
    }

    /// The same failure, after others of the mirrors before.
    pub(crate) fn after(mut self, others: &[Self]) -> Self {
        for other in others {
            self.why.push_str(&format!(" (mirror {}: {})", other.registry, other.why));
        }
        self
    }
}

/// An error with all its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn remedy(registry: &str, error: &OciDistributionError, why: &str) -> (String, bool) {
    let log_in = format!("log in with `docker login {registry}` or `podman login {registry}` as someone who may");
    match error {
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            (log_in, false)
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let has = |code: &OciErrorCode| envelope.errors.iter().any(|error| error.code == *code);
            if has(&OciErrorCode::Toomanyrequests) {
                ("wait, log in, or use a mirror".to_owned(), true)
            } else if has(&OciErrorCode::Denied) || has(&OciErrorCode::Unauthorized) {
                (log_in, false)
            } else {
                ("check the name, the tag and the digest".to_owned(), false)
            }
        }
        OciDistributionError::ServerError { code: 401 | 403, .. } => (log_in, false),
        OciDistributionError::ServerError { code: 404, .. } => {
            ("check the name, the tag and the digest".to_owned(), false)
        }
        OciDistributionError::ServerError { code, .. } => {
            ("try again, or look into its log".to_owned(), *code >= 500 || *code == 429)
        }
        OciDistributionError::RequestError(error) if error.status().is_some_and(|status| status.is_client_error()) => {
            (log_in, false)
        }
        OciDistributionError::RequestError(_) if why.contains("certificate") || why.contains("UnknownIssuer") => {
            ("name the authority it has its certificate from (`--ca-cert FILE`)".to_owned(), false)
        }
        OciDistributionError::RequestError(_) => (
            "check that it can be reached, and that it speaks TLS; without TLS, say so (`--plain-http`)".to_owned(),
            true,
        ),
        OciDistributionError::IoError(_) => ("look whether the network holds, and try again".to_owned(), true),
        _ => ("look into its log".to_owned(), false),
    }
}
