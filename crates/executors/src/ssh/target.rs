//! One host, as the client is told of it.

use std::ffi::OsString;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A host, and what is needed to get there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The host, as `ssh` is told.
    pub host: String,
    /// As whom.
    pub user: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// A private key besides those of the configuration.
    pub identity_file: Option<String>,
    /// A configuration instead of the user's and the system's.
    pub config_file: Option<String>,
    /// Where things are kept on the host.
    pub directory: Option<String>,
}

impl Target {
    /// What leads the client there, but for the command.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut say = |flag: &str, value: &str| arguments.extend([flag.into(), value.into()]);
        if let Some(file) = &self.config_file {
            say("-F", file);
        }
        if let Some(user) = &self.user {
            say("-l", user);
        }
        if let Some(port) = self.port {
            say("-p", &port.to_string());
        }
        if let Some(file) = &self.identity_file {
            say("-i", file);
        }
        // A host never is an option, whatever it is called.
        arguments.extend(["--".into(), self.host.as_str().into()]);
        arguments
    }

    /// The client's own words for getting there, for somebody to try.
    pub(super) fn command(&self) -> String {
        let quoted = |word: &OsString| {
            let word = word.to_string_lossy().into_owned();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./~@:%+=,".contains(c);
            if word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
        };
        let words: Vec<_> = self.arguments().iter().filter(|word| *word != "--").map(quoted).collect();
        format!("ssh {}", words.join(" "))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}", self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_as_the_client_wants_it() {
        let plain = Target { host: "build-1".to_owned(), ..Target::default() };
        assert_eq!(plain.arguments(), ["--", "build-1"]);
        assert_eq!((plain.to_string(), plain.command()), ("build-1".to_owned(), "ssh build-1".to_owned()));
        let full = Target {
            host: "::1".to_owned(),
            user: Some("ann".to_owned()),
            port: Some(2222),
            identity_file: Some("~/.ssh/my key".to_owned()),
            ..Target::default()
        };
        assert_eq!(full.arguments(), ["-l", "ann", "-p", "2222", "-i", "~/.ssh/my key", "--", "::1"]);
        assert_eq!(full.to_string(), "ann@::1:2222");
        assert_eq!(full.command(), "ssh -l ann -p 2222 -i '~/.ssh/my key' ::1");
    }
}
