//! How registries are reached: who one is there, which mirrors stand in for them, whose certificates are trusted.
//!
//! - `docker_config`: the files that `docker login` and `podman login` write;
//! - `credential_helper`: the programs such a file may name, `docker-credential-NAME`;
//! - `mirror`: what stands in for a registry.
//!
//! All of it is said by whoever calls: files by their paths, variables by their names and the values he found.

mod credential_helper;
mod docker_config;
mod mirror;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use mirror::Mirror;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Where credentials come from, the first that knows the registry.
    pub credentials: Vec<CredentialSource>,
    /// What stands in for registries, in the order in which they are tried; the registry itself comes last.
    pub mirrors: Vec<Mirror>,
    /// Files of certificate authorities (PEM) to trust beside the system's.
    pub authorities: Vec<PathBuf>,
    /// Registries, `HOST[:PORT]`, that are spoken to without TLS. Those on the loopback are anyway.
    pub plain_http: Vec<String>,
}

/// Where credentials come from.
#[derive(Clone)]
pub enum CredentialSource {
    /// A file as `docker login` (`config.json`) or `podman login` (`auth.json`) writes it. One that isn't there knows none.
    File(PathBuf),
    /// Values of variables that were named for one registry.
    Variables {
        /// Which registry, `HOST[:PORT]`.
        registry: String,
        /// The name of the variable with the user's name.
        username: String,
        /// The name of the variable with the password or token.
        password: String,
        /// The values of these variables, as far as they are set.
        values: BTreeMap<String, String>,
    },
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Variables { registry, username, password, .. } => {
                f.debug_tuple("Variables").field(registry).field(username).field(password).finish()
            }
        }
    }
}

/// Who one is at a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Nobody.
    Anonymous,
    /// A user.
    Password {
        /// Their name.
        username: String,
        /// Their password.
        password: String,
    },
    /// A token that the registry gave for one to be exchanged for others.
    IdentityToken(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { username, .. } => {
                f.debug_struct("Password").field("username", username).finish_non_exhaustive()
            }
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// Why [`Access`] can't be used as it is.
#[derive(Debug, Error)]
pub enum AccessError {
    /// A file can't be read or understood.
    #[error("{}: {why}; write it anew with `docker login` or `podman login`", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A credential helper doesn't work.
    #[error("docker-credential-{name} {why}; {} names it for {registry}", path.display())]
    Helper {
        /// Its name.
        name: String,
        /// The file that names it.
        path: PathBuf,
        /// For which registry.
        registry: String,
        /// What went wrong.
        why: String,
    },
    /// A variable that was named isn't set.
    #[error("the variable {name} is named for {registry} and is not set; set it, or name another")]
    Variable {
        /// Its name.
        name: String,
        /// For which registry.
        registry: String,
    },
    /// A kind of login that engines know and we don't.
    #[error(
        "the login for {registry} is an identity token, which only an engine can use; log in there with a password or an access token"
    )]
    IdentityToken {
        /// For which registry.
        registry: String,
    },
    /// A file of authorities can't be used.
    #[error("{}: {why}; give a PEM file with `-----BEGIN CERTIFICATE-----`", path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The text names no mirror.
    #[error("`{text}` is no mirror: {why}; write REGISTRY=http[s]://HOST[:PORT][/PREFIX]")]
    Mirror {
        /// The text.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up: {why}; install `ca-certificates`")]
    Tls {
        /// What went wrong.
        why: String,
    },
}

impl Access {
    /// Who one is at a registry, for a repository there. May run a credential helper, and waits for it: not for a thread
    /// that others wait for.
    ///
    /// # Errors
    /// When a source that should know can't be used.
    pub fn login(&self, registry: &str, repository: &str) -> Result<Login, AccessError> {
        for source in &self.credentials {
            let found = match source {
                CredentialSource::File(path) => docker_config::login(path, registry, repository)?,
                CredentialSource::Variables { registry: named, username, password, values } => {
                    if docker_config::key(named) != docker_config::key(registry) {
                        continue;
                    }
                    let value = |name: &String| {
                        let unset = || AccessError::Variable { name: name.clone(), registry: registry.to_owned() };
                        values.get(name).cloned().ok_or_else(unset)
                    };
                    Some(Login::Password { username: value(username)?, password: value(password)? })
                }
            };
            if let Some(login) = found {
                return Ok(login);
            }
        }
        Ok(Login::Anonymous)
    }

    /// The mirrors of a registry, in the order in which they are tried.
    pub fn mirrors_of(&self, registry: &str) -> impl Iterator<Item = &Mirror> {
        self.mirrors.iter().filter(move |mirror| mirror.of == registry || mirror.of == "*")
    }

    /// Whether a registry is spoken to without TLS. What is said of it as a mirror, be it of itself, holds first.
    #[must_use]
    pub fn is_plain(&self, registry: &str) -> bool {
        if let Some(mirror) = self.mirrors.iter().find(|mirror| mirror.host == registry) {
            return mirror.is_plain;
        }
        is_loopback(registry) || self.plain_http.iter().any(|plain| plain == registry)
    }

    /// The certificates of all authorities that are trusted beside the system's, in DER.
    ///
    /// # Errors
    /// When a file can't be read or holds none.
    pub fn certificates(&self) -> Result<Vec<Vec<u8>>, AccessError> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        let mut certificates = Vec::new();
        for path in &self.authorities {
            let wrong = |why: String| AccessError::Authority { path: path.clone(), why };
            let found = CertificateDer::pem_file_iter(path)
                .map_err(|error| wrong(format!("can't be read: {error}")))?
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| wrong(format!("is not a PEM file: {error}")))?;
            if found.is_empty() {
                return Err(wrong("holds no certificate".to_owned()));
            }
            certificates.extend(found.into_iter().map(|certificate| certificate.to_vec()));
        }
        Ok(certificates)
    }
}

/// Whether a registry is on this machine's loopback, by its name or address.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A file's text, or nothing where there is no file.
fn read_if_there(path: &std::path::Path) -> Result<Option<String>, AccessError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AccessError::Config { path: path.to_owned(), why: format!("can't be read: {error}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_needs_no_tls_unless_told() {
        let access = Access { plain_http: vec!["registry.local:5000".to_owned()], ..Access::default() };
        for registry in
            ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:80", "registry.local:5000"]
        {
            assert!(access.is_plain(registry), "{registry}");
        }
        for registry in ["docker.io", "registry.local", "127.0.0.1.example.com", "localhost.example", "10.0.0.1:5000"] {
            assert!(!access.is_plain(registry), "{registry}");
        }
    }

    #[test]
    fn variables_are_for_their_registry_and_must_be_set() {
        let source = |values: &[(&str, &str)]| CredentialSource::Variables {
            registry: "r.example".to_owned(),
            username: "U".to_owned(),
            password: "P".to_owned(),
            values: values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let access = |source| Access { credentials: vec![source], ..Access::default() };
        let set = access(source(&[("U", "ann"), ("P", "secret")]));
        let ann = Login::Password { username: "ann".to_owned(), password: "secret".to_owned() };
        assert_eq!(set.login("r.example", "a").unwrap(), ann);
        assert_eq!(set.login("other.example", "a").unwrap(), Login::Anonymous);
        assert!(!format!("{set:?} {ann:?}").contains("secret"));
        let error = access(source(&[("U", "ann")])).login("r.example", "a").unwrap_err();
        assert!(error.to_string().contains("variable P"), "{error}");
    }

    #[test]
    fn authorities_that_are_none_are_named() {
        let access = Access { authorities: vec!["/dev/null".into()], ..Access::default() };
        assert!(access.certificates().unwrap_err().to_string().starts_with("/dev/null: holds no certificate"));
    }
}
