//! Where variables come from that are not written in the file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A source of variables. It is asked by the worker, once a run, and finds its files in the tree the run starts from; when it
/// fails the run fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Provider {
    /// A file of `KEY=value` lines.
    #[serde(alias = "dotenv")]
    File {
        /// Its path, from the repository's root.
        path: String,
        /// Whether it is an error when it isn't there.
        #[serde(default)]
        required: bool,
    },
    /// A file that the `sops` program decrypts. Its values are secrets.
    Sops {
        /// Its path, from the repository's root.
        file: String,
        /// What is in it.
        #[serde(default)]
        format: SopsFormat,
        /// Whether it is an error when it isn't there.
        #[serde(default = "yes")]
        required: bool,
    },
    /// These.
    Static(BTreeMap<String, String>),
    /// Nothing; but it is an error when one of these names has no value by then.
    Required(Vec<String>),
    /// A program that prints `export KEY="value"` lines. Its values are secrets.
    Command(Vec<String>),
}

impl Provider {
    /// Whether a program of the worker's machine is run for it.
    #[must_use]
    pub fn runs_a_program(&self) -> bool {
        matches!(self, Self::Sops { .. } | Self::Command(_))
    }

    /// Whether it may look for something in the repository.
    #[must_use]
    pub fn reads_repository(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Sops { .. } | Self::Command(_))
    }
}

fn yes() -> bool {
    true
}

/// What a file holds that `sops` decrypts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SopsFormat {
    /// A YAML map; nested keys are joined by `_`.
    #[default]
    Yaml,
    /// A JSON object; likewise.
    Json,
    /// `KEY=value` lines.
    Dotenv,
}
