//! Commands for whoever keeps a server: tokens, statistics, migrations, completions.

use clap::{Args, Subcommand};
use clap_complete::Shell;
use executr_api::Role;
use executr_spec::{Span, Tenant, TokenId};

use super::connection::ConnectionArgs;
use super::server::DatabaseArgs;
use super::values::OutputForm;

/// `executr token`
#[derive(Debug, Args)]
#[command(
    about = "Create, list and revoke access tokens",
    long_about = "Creates, lists and revokes access tokens: through the server, or, when a database is named with --db-url \
        or --data-dir, in that database without a server. The first token has to be made while everybody may do \
        everything: on the server's own machine, or in its database.",
    after_help = "Examples:
  executr token create --role admin --name me --db-url postgres://executr:secret@db/executr > admin.token
  executr token create --role execute --name w1
  executr token list"
)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it; it is shown this once
    #[command(after_help = "Examples:
  executr token create --role submit --name ci > ci.token
  executr token create --role execute --name w1 --data-dir /var/lib/executr")]
    Create {
        /// What it allows: read (look at jobs), submit (that, and submit and cancel), execute (be an executor), admin
        #[arg(long)]
        role: Role,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
        /// On whose behalf its jobs are submitted; tenants of one queue take turns
        #[arg(long)]
        tenant: Option<Tenant>,
        /// Not valid any more after so long
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<Span>,
        #[command(flatten)]
        place: TokenPlaceArgs,
    },
    /// List tokens, without their secrets
    #[command(after_help = "Examples:
  executr token list
  executr token list --output json")]
    List {
        #[command(flatten)]
        place: TokenPlaceArgs,
    },
    /// Make a token invalid
    #[command(after_help = "Examples:
  executr token revoke 01890a5d-ac96-774b-bcce-b302099a8057")]
    Revoke {
        /// The token's id, as `executr token list` shows it
        #[arg(value_name = "ID")]
        id: TokenId,
        #[command(flatten)]
        place: TokenPlaceArgs,
    },
}

/// Where tokens are, and how to show them.
#[derive(Debug, Args)]
pub(crate) struct TokenPlaceArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// How to show them
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
}

/// `executr stats`
#[derive(Debug, Args)]
#[command(
    about = "Show how many jobs there are",
    after_help = "Examples:
  executr stats
  executr stats --output json | jq .jobs_by_status.pending"
)]
pub(crate) struct StatsArgs {
    /// How to show them
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `executr executors`
#[derive(Debug, Args)]
#[command(
    about = "Show the executors the server has heard of lately",
    after_help = "Examples:
  executr executors
  executr executors --output json"
)]
pub(crate) struct ExecutorsArgs {
    /// How to show them
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `executr migrate`
#[derive(Debug, Args)]
#[command(
    about = "Bring a database up to date without starting a server",
    long_about = "Brings a database up to date without starting a server, with an account that may create tables. A \
        server does the same when it starts.",
    after_help = "Examples:
  executr migrate --db-url postgres://owner:secret@db/executr
  executr migrate --data-dir /var/lib/executr"
)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
}

/// `executr completions`
#[derive(Debug, Args)]
#[command(
    about = "Print a script that completes this program's commands in a shell",
    after_help = "Examples:
  executr completions bash > ~/.local/share/bash-completion/completions/executr
  executr completions zsh > ~/.zfunc/_executr
  executr completions fish > ~/.config/fish/completions/executr.fish"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}
