//! What an image is called.

use std::fmt;
use std::str::FromStr;

use executr_spec::Digest;
use thiserror::Error;

/// `[REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST]`. Without a registry it is Docker Hub's, without tag and digest `latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference(oci_client::Reference);

/// Why a text is not a [`Reference`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "`{text}` names no image: {why}; write it like `alpine:3.20`, `registry.example:5000/team/tool:1.2` or `name@sha256:…`"
)]
pub struct ReferenceError {
    text: String,
    why: String,
}

impl Reference {
    /// The registry's host, with its port if one is said; `docker.io` for Docker Hub.
    #[must_use]
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// The repository, without the registry: `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        self.0.repository()
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    /// The digest of its manifest, or of its index of several platforms.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.0.digest().and_then(parse_digest)
    }

    /// The same repository at a digest.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self(self.0.clone_with_digest(oci_digest(digest)))
    }

    /// The same repository name and tag elsewhere, with a prefix before the repository.
    pub(crate) fn elsewhere(&self, registry: &str, prefix: &str) -> oci_client::Reference {
        let repository = match prefix {
            "" => self.repository().to_owned(),
            prefix => format!("{prefix}/{}", self.repository()),
        };
        let registry = registry.to_owned();
        match (self.0.digest(), self.tag()) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_owned()),
            (None, tag) => oci_client::Reference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned()),
        }
    }

    pub(crate) fn as_oci(&self) -> &oci_client::Reference {
        &self.0
    }
}

/// `sha256:` and the digits, as registries write it.
pub(crate) fn oci_digest(digest: Digest) -> String {
    format!("sha256:{digest}")
}

/// What registries write, read; `None` for anything but SHA-256 in lower case.
pub(crate) fn parse_digest(text: &str) -> Option<Digest> {
    let digits = text.strip_prefix("sha256:")?;
    let digest: Digest = digits.parse().ok()?;
    (digest.to_string() == digits).then_some(digest)
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| ReferenceError { text: text.to_owned(), why: why.to_owned() };
        let reference: oci_client::Reference = text.parse().map_err(|error| wrong(&format!("{error}")))?;
        if reference.digest().is_some_and(|digest| parse_digest(digest).is_none()) {
            return Err(wrong("its digest is not `sha256:` and 64 lower-case hexadecimal digits"));
        }
        Ok(Self(reference))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.whole())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_everybody_reads_them() {
        let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("ann/tool:1", "docker.io/ann/tool:1"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
            ("localhost/a@sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", ""),
        ] {
            let reference: Reference = text.parse().unwrap();
            let whole = if whole.is_empty() { format!("localhost/a@{digest}") } else { whole.to_owned() };
            assert_eq!(reference.to_string(), whole);
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn what_names_nothing_is_refused_with_an_example() {
        let short = "a@sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for text in ["", "A", "a b", "a:", "../a", "a@sha256:12", short] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains("alpine:3.20"), "{error}");
        }
    }
}
