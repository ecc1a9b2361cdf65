//! One command of a job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::condition::Condition;
use crate::digest::Digest;
use crate::retry::Retry;
use crate::step_image::{StepImage, WrittenImage};
use crate::time::Span;
use crate::workflow::Provider;

/// What a step runs. Exactly one of the three stands in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepCommand {
    /// A program and its arguments, started without a shell.
    Argv(Vec<String>),
    /// A script for `/bin/sh -e`, which ends at the first command that fails, or for what its `#!` line names.
    Run(String),
    /// A program fetched by URL, verified by its SHA-256, kept in the worker's cache.
    Binary(BinaryStep),
}

/// A program that is fetched before it is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BinaryStep {
    /// `http://`, `https://`, `file:///` or `blob:<sha256>` for a blob of the server itself.
    #[schema(pattern = r"^(https?://|file:///|blob:)[^\x00-\x1f\x7f]*$")]
    pub url: String,
    /// What the bytes must hash to.
    pub sha256: Digest,
    /// The arguments, passed as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// One command of a job: `argv`, `run` or `binary`, with its own name, environment and timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenStep", into = "WrittenStep")]
pub struct Step {
    /// What it runs.
    pub command: StepCommand,
    /// What people call it.
    pub name: Option<String>,
    /// Variables on top of the job's.
    pub env: BTreeMap<String, String>,
    /// After this long the step is ended and the attempt fails.
    pub timeout: Option<Span>,
    /// When it runs.
    pub condition: Condition,
    /// How often it is tried.
    pub retry: Option<Retry>,
    /// Whether the job goes on, and may succeed, when it fails.
    pub continue_on_error: bool,
    /// Where it starts, from the job directory.
    pub workdir: Option<String>,
    /// What a container of its own is made of, on the same job directory; the job's place without.
    pub image: Option<StepImage>,
    /// Sources of variables between the job's and its own `env`.
    pub env_from: Vec<Provider>,
}

impl Step {
    /// A step with nothing but its command.
    #[must_use]
    pub fn new(command: StepCommand) -> Self {
        Self {
            command,
            name: None,
            env: BTreeMap::new(),
            timeout: None,
            condition: Condition::Success,
            retry: None,
            continue_on_error: false,
            workdir: None,
            image: None,
            env_from: Vec::new(),
        }
    }
}

/// A step as it is written: exactly one of `argv`, `run` and `binary`.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Step)]
pub(crate) struct WrittenStep {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argv: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binary: Option<BinaryStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<Span>,
    #[serde(default, rename = "if", alias = "condition", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    condition: Option<Condition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Retry>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    continue_on_error: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WrittenImage>)]
    image: Option<StepImage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    env_from: Vec<Provider>,
}

impl utoipa::PartialSchema for Step {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        WrittenStep::schema()
    }
}

impl ToSchema for Step {
    fn name() -> std::borrow::Cow<'static, str> {
        std::borrow::Cow::Borrowed("Step")
    }

    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        WrittenStep::schemas(schemas);
    }
}

impl TryFrom<WrittenStep> for Step {
    type Error = String;

    fn try_from(written: WrittenStep) -> Result<Self, String> {
        let WrittenStep {
            argv,
            run,
            binary,
            name,
            env,
            timeout,
            condition,
            retry,
            continue_on_error,
            workdir,
            image,
            env_from,
        } = written;
        let command = match (argv, run, binary) {
            (Some(argv), None, None) => StepCommand::Argv(argv),
            (None, Some(script), None) => StepCommand::Run(script),
            (None, None, Some(binary)) => StepCommand::Binary(binary),
            (None, None, None) => return Err("a step needs one of `argv`, `run` and `binary`".to_owned()),
            _ => return Err("a step has only one of `argv`, `run` and `binary`; make two steps of it".to_owned()),
        };
        Ok(Self {
            command,
            name,
            env,
            timeout,
            condition: condition.unwrap_or_default(),
            retry,
            continue_on_error,
            workdir,
            image,
            env_from,
        })
    }
}

impl From<Step> for WrittenStep {
    fn from(step: Step) -> Self {
        let mut written = Self {
            name: step.name,
            env: step.env,
            timeout: step.timeout,
            condition: (step.condition != Condition::Success).then_some(step.condition),
            retry: step.retry,
            continue_on_error: step.continue_on_error,
            workdir: step.workdir,
            image: step.image,
            env_from: step.env_from,
            ..Self::default()
        };
        match step.command {
            StepCommand::Argv(argv) => written.argv = Some(argv),
            StepCommand::Run(script) => written.run = Some(script),
            StepCommand::Binary(binary) => written.binary = Some(binary),
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_exactly_one_command() {
        let step: Step = serde_json::from_str(r#"{"run":"make","timeout":"5m"}"#).expect("a step");
        assert_eq!(step.command, StepCommand::Run("make".to_owned()));
        assert_eq!(serde_json::to_string(&step).expect("JSON"), r#"{"run":"make","timeout":"5m"}"#);
        for (text, told) in [
            ("{}", "needs one of"),
            (r#"{"run":"make","argv":["make"]}"#, "only one of"),
            (r#"{"bash":"make"}"#, "unknown field `bash`"),
        ] {
            let error = serde_json::from_str::<Step>(text).expect_err(text).to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
