//! Versions, and how far apart server and worker may be.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// A program's version: `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Changes when users must change something.
    pub major: u32,
    /// Changes with each release.
    pub minor: u32,
    /// Changes with each correction.
    pub patch: u32,
}

/// Server and worker are too far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CompatibilityError {
    /// The worker is behind.
    #[error("the executor is version {worker}, this server {server}: more than one minor version apart; upgrade the executor to {}.{}", server.major, server.minor)]
    UpgradeWorker {
        /// The worker's version.
        worker: Version,
        /// The server's version.
        server: Version,
    },
    /// The server is behind.
    #[error("the executor is version {worker}, this server {server}: more than one minor version apart; upgrade the server to {}.{}", worker.major, worker.minor)]
    UpgradeServer {
        /// The worker's version.
        worker: Version,
        /// The server's version.
        server: Version,
    },
}

impl Version {
    /// The version of this build.
    ///
    /// # Panics
    /// Never: the workspace's version is checked by a test.
    #[must_use]
    pub fn current() -> Self {
        env!("CARGO_PKG_VERSION").parse().unwrap_or(Self { major: 0, minor: 0, patch: 0 })
    }

    /// Checks that a server of this version may serve `worker`: the same major version, at most one minor apart.
    ///
    /// # Errors
    /// Which of the two to upgrade.
    pub fn serves(self, worker: Self) -> Result<(), CompatibilityError> {
        if self.major == worker.major && self.minor.abs_diff(worker.minor) <= 1 {
            Ok(())
        } else if worker < self {
            Err(CompatibilityError::UpgradeWorker { worker, server: self })
        } else {
            Err(CompatibilityError::UpgradeServer { worker, server: self })
        }
    }
}

impl PartialSchema for Version {
    fn schema() -> RefOr<Schema> {
        let version = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .description(Some("A program's version: `major.minor.patch`."))
            .pattern(Some(r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}([-+].*)?$"));
        RefOr::T(Schema::Object(version.build()))
    }
}

impl ToSchema for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a version; write it as 1.2.3");
        let number = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = number.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(wrong()),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_apart_is_served_and_no_more() {
        let table = [
            ("3.43.0", "3.43.7", true),
            ("3.43.3", "3.43.0", true),
            ("3.43.0", "3.44.2", true),
            ("3.43.0", "3.42.9", true),
            ("3.43.0", "3.41.0", false),
            ("3.43.0", "3.45.0", false),
            ("3.43.0", "4.43.0", false),
        ];
        for (server, worker, ok) in table {
            let [server, worker] = [server, worker].map(|text| text.parse::<Version>().expect("a version"));
            assert_eq!(server.serves(worker).is_ok(), ok, "{server} {worker}");
        }
    }

    #[test]
    fn the_refusal_names_what_to_upgrade() {
        let [old, new] = ["0.1.0", "0.3.0"].map(|text| text.parse::<Version>().expect("a version"));
        assert!(new.serves(old).expect_err("old").to_string().ends_with("upgrade the executor to 0.3"));
        assert!(old.serves(new).expect_err("new").to_string().ends_with("upgrade the server to 0.3"));
        assert_ne!(Version::current().to_string(), "0.0.0");
    }
}
