//! Commands that look at a workflow's file and run nothing: `check`, `graph` and `schema`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The file when none is named.
const DEFAULT_FILE: &str = "executr.yaml";

/// `executr check`
#[derive(Debug, Args)]
#[command(
    about = "Find what is wrong with a workflow before anything of it runs",
    after_help = "Examples:
  executr check
  executr check ci.yaml
  generate-workflow | executr check -"
)]
pub(crate) struct CheckArgs {
    /// The workflow's file; `-` is standard input
    #[arg(default_value = DEFAULT_FILE, value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `executr graph`
#[derive(Debug, Args)]
#[command(
    about = "Show a workflow's graph",
    after_help = "Examples:
  executr graph ci.yaml
  executr graph ci.yaml --format dot | dot -Tsvg > ci.svg"
)]
pub(crate) struct GraphArgs {
    /// The workflow's file; `-` is standard input
    #[arg(default_value = DEFAULT_FILE, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How to show it
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) format: GraphFormat,
}

/// How a graph is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// In layers
    Text,
    /// For <https://mermaid.js.org>
    Mermaid,
    /// For <https://graphviz.org>
    Dot,
}

/// `executr schema`
#[derive(Debug, Args)]
#[command(
    about = "Write the JSON Schema of workflow files, for editors",
    after_help = "Examples:
  executr schema > executr.schema.json"
)]
pub(crate) struct SchemaArgs {}
