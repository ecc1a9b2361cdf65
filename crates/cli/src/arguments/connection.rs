//! Which server a command talks to, and as whom.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};

use super::values;

/// Where a server started without flags is reached from its own machine.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// Where the server is, and what to show it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ConnectionArgs {
    /// The server
    #[arg(long, env = "EXECUTR_SERVER_URL", value_name = "URL", default_value = DEFAULT_SERVER)]
    pub(crate) server_url: String,
    #[command(flatten)]
    pub(crate) credentials: CredentialArgs,
}

/// As whom to talk to a server, and how to know it.
#[derive(Clone, Debug)]
pub(crate) struct CredentialArgs {
    pub(crate) token: TokenSource,
    pub(crate) ca_cert: Option<PathBuf>,
}

/// Where the access token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// There is none.
    None,
    /// It was given as it is.
    Given(String),
    /// It stands in this file.
    File(PathBuf),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
struct WrittenCredentials {
    /// An access token. Other users of this machine can read it here: a file is better
    #[arg(long, env = "EXECUTR_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds an access token
    #[arg(long, env = "EXECUTR_TOKEN_FILE", value_name = "FILE", value_parser = values::path)]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust for the server instead of those this machine trusts
    #[arg(long, env = "EXECUTR_CA_CERT", value_name = "FILE", value_parser = values::path)]
    ca_cert: Option<PathBuf>,
}

// By hand, because a flag has to win over the variable of the other flag, too.
impl FromArgMatches for CredentialArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let written = WrittenCredentials::from_arg_matches(matches)?;
        let is_flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        let token = match (written.token, written.token_file) {
            (Some(_), Some(_)) if is_flag("token") && is_flag("token_file") => {
                let message = "give --token or --token-file, not both";
                return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, message));
            }
            (Some(_), Some(file)) if is_flag("token_file") => TokenSource::File(file),
            (Some(token), _) => TokenSource::Given(token),
            (None, Some(file)) => TokenSource::File(file),
            (None, None) => TokenSource::None,
        };
        Ok(Self { token, ca_cert: written.ca_cert })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for CredentialArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        WrittenCredentials::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        WrittenCredentials::augment_args_for_update(command)
    }
}
