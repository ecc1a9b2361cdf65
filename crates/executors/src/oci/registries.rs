//! Registries, as an engine that fetches images itself is told of them: who one is there, what stands in for them, and what
//! to do about their refusals.

use executr_images::{Access, Login, Mirror, Reference};

use super::engine::ContainerError;
use super::options::RegistryLogin;

/// An image that is wanted, and how registries are reached for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetching<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// How registries are reached.
    pub(super) access: &'a Access,
    /// Who one is at the registry it names, rather than what is known otherwise.
    pub(super) login: Option<&'a RegistryLogin>,
}

/// One place that may have an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The registry's host.
    pub(super) host: String,
    /// The repository there.
    pub(super) repository: String,
    /// The tag, or `sha256:…`.
    pub(super) version: String,
    /// It stands in for another.
    pub(super) is_mirror: bool,
}

impl Source {
    /// What an engine calls the image there.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The same, with its version.
    pub(super) fn exact(&self) -> String {
        let between = if self.is_digest() { '@' } else { ':' };
        format!("{}{between}{}", self.name(), self.version)
    }

    pub(super) fn is_digest(&self) -> bool {
        self.version.starts_with("sha256:")
    }
}

/// Where an image may be had, in the order in which it is looked for; the registry it names comes last.
///
/// # Errors
/// When the name isn't one.
pub(super) fn sources(name: &str, access: &Access) -> Result<Vec<Source>, ContainerError> {
    let wrong = |message: String| ContainerError::Image { image: name.to_owned(), message };
    let reference: Reference =
        name.parse().map_err(|error: executr_images::ReferenceError| wrong(error.to_string()))?;
    let version = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("sha256:{digest}"),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let of = |host: &str, prefix: &str, is_mirror| {
        let repository = match prefix {
            "" => reference.repository().to_owned(),
            prefix => format!("{prefix}/{}", reference.repository()),
        };
        Source { host: host.to_owned(), repository, version: version.clone(), is_mirror }
    };
    let mirrors = access.mirrors_of(reference.registry()).map(|Mirror { host, prefix, .. }| of(host, prefix, true));
    let mut sources: Vec<_> = mirrors.collect();
    sources.push(of(reference.registry(), "", false));
    Ok(sources)
}

/// What is known of who one is at a source. Asks credential helpers, so it may take a while.
///
/// # Errors
/// With what can't be read, and what to do.
pub(super) async fn login(how: &Fetching<'_>, source: &Source) -> Result<Login, String> {
    if let Some(RegistryLogin { username, password }) = how.login.filter(|_| !source.is_mirror) {
        return Ok(Login::Password { username: username.clone(), password: password.clone() });
    }
    let access = how.access;
    let (access, host, repository) = (access.clone(), source.host.clone(), source.repository.clone());
    let asked = tokio::task::spawn_blocking(move || access.login(&host, &repository)).await;
    asked.map_err(|broken| broken.to_string())?.map_err(|error| error.to_string())
}

/// A refusal in words: which registry said what to whom, and the remedy where there is one.
pub(super) fn explained(source: &Source, login: &Login, said: &str) -> String {
    let host = &source.host;
    let lower = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let remedy = if has(&["certificate", "x509"]) {
        format!(
            "; give the engine the certificate of {host}'s authority as /etc/docker/certs.d/{host}/ca.crt, or below \
             /etc/containers/certs.d for Podman"
        )
    } else if has(&["http response to https client"]) {
        format!("; {host} speaks no TLS: name it in the engine's `insecure-registries`")
    } else if has(&["unauthorized", "denied", "authentication required", "no basic auth", "401", "403"]) {
        match login {
            Login::Password { username, .. } => format!(
                "; {host} doesn't take the login of `{username}`: log in anew with `docker login {host}`, or mend the variables \
                 that the executor's `registry` names"
            ),
            Login::IdentityToken(_) => format!("; log in anew with `docker login {host}`"),
            Login::Anonymous => format!(
                "; no login is known for {host}: run `docker login {host}` as the user of the worker, or name variables with \
                 the executor's `registry`"
            ),
        }
    } else {
        String::new()
    };
    let kind = if source.is_mirror { "the mirror " } else { "" };
    format!("{kind}{host} says: {}{remedy}", said.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(host: &str) -> Source {
        Source { host: host.into(), repository: "a".into(), version: "1".into(), is_mirror: false }
    }

    #[test]
    fn mirrors_come_first_and_the_registry_last() {
        let mirrors = ["docker.io=https://m.example/hub", "*=http://127.0.0.1:5000", "other.example=https://o.example"];
        let mirrors = mirrors.iter().map(|text| text.parse().expect("a mirror")).collect();
        let access = Access { mirrors, ..Access::default() };
        let names: Vec<_> = sources("alpine:3", &access).expect("a name").iter().map(Source::exact).collect();
        assert_eq!(
            names,
            ["m.example/hub/library/alpine:3", "127.0.0.1:5000/library/alpine:3", "docker.io/library/alpine:3"]
        );
        let digest = format!("r.example/a@sha256:{}", "0".repeat(64));
        let names: Vec<_> = sources(&digest, &Access::default()).expect("a name").iter().map(Source::exact).collect();
        assert_eq!(names, [digest]);
        assert!(sources("A B", &access).is_err());
    }

    #[test]
    fn refusals_name_the_registry_and_the_remedy() {
        let ann = Login::Password { username: "ann".to_owned(), password: "secret".to_owned() };
        for (login, said, told) in [
            (Login::Anonymous, "no basic auth credentials", "docker login r.example"),
            (ann.clone(), "unauthorized: authentication required", "the login of `ann`"),
            (ann.clone(), "x509: certificate signed by unknown authority", "/etc/docker/certs.d/r.example/ca.crt"),
            (ann.clone(), "http: server gave HTTP response to HTTPS client", "insecure-registries"),
            (ann, "manifest unknown", "r.example says: manifest unknown"),
        ] {
            let text = explained(&source("r.example"), &login, said);
            assert!(text.contains("r.example") && text.contains(told) && !text.contains("secret"), "{text}");
        }
    }
}
