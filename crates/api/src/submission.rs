//! A job as it is submitted: the original's flat form, or steps.

use std::collections::BTreeMap;

use executr_spec::{
    Backoff, BinaryStep, Digest, EnvironmentBase, JobSpec, JobType, Priority, QueueName, Resources, Span, SpecError,
    Step, StepCommand, Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What `POST /jobs` takes: `binary_url` and its fields, or `steps`; all else is shared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each field is that of `JobSpec`, or the original's, as described in docs/api.md")]
pub struct Submission {
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub job_type: Option<JobType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_sha256: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_variables: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Step>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = r"^/[^\x00]*$")]
    pub directory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256)]
    pub idempotency_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256)]
    pub concurrency_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub concurrency_limit: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    #[serde(default)]
    pub exclusive: bool,
}

impl Submission {
    /// The job that is asked for, checked.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and what to write there.
    pub fn into_spec(self) -> Result<JobSpec, SpecError> {
        let wrong = |field: &str, problem: &str| SpecError { field: field.to_owned(), problem: problem.to_owned() };
        let flat = self.binary_url.is_some() || self.binary_sha256.is_some() || self.arguments.is_some();
        let (steps, environment, env) = match (self.steps, flat) {
            (Some(_), true) => {
                return Err(wrong(
                    "steps",
                    "stands beside `binary_url`, `binary_sha256` or `arguments`; use one form or the other",
                ));
            }
            (None, false) => {
                return Err(wrong("steps", "is missing; give `steps`, or `binary_url` and `binary_sha256`"));
            }
            (Some(steps), false) => {
                if self.env_variables.is_some() {
                    return Err(wrong(
                        "env_variables",
                        "belongs to the form with `binary_url`; use `env` beside `steps`",
                    ));
                }
                (steps, EnvironmentBase::Fixed, self.env)
            }
            (None, true) => {
                if self.env.is_some() {
                    return Err(wrong(
                        "env",
                        "belongs to the form with `steps`; use `env_variables` beside `binary_url`",
                    ));
                }
                if self.job_type.is_none() {
                    return Err(wrong("type", "is missing; give a word without spaces"));
                }
                let binary = BinaryStep {
                    url: self.binary_url.ok_or_else(|| wrong("binary_url", "is missing"))?,
                    sha256: self
                        .binary_sha256
                        .ok_or_else(|| wrong("binary_sha256", "is missing; give what `sha256sum` prints"))?,
                    args: self.arguments.unwrap_or_default(),
                };
                (vec![Step::new(StepCommand::Binary(binary))], EnvironmentBase::Empty, self.env_variables)
            }
        };
        let spec = JobSpec {
            job_type: self.job_type.unwrap_or_default(),
            env: env.unwrap_or_default(),
            environment,
            inherit: self.inherit,
            directory: self.directory,
            timeout: self.timeout,
            priority: self.priority.unwrap_or_default(),
            max_retries: self.max_retries.unwrap_or_default(),
            backoff: self.backoff.unwrap_or_default(),
            queue: self.queue.unwrap_or_default(),
            labels: self.labels,
            run_at: self.run_at,
            idempotency_key: self.idempotency_key,
            concurrency_key: self.concurrency_key,
            concurrency_limit: self.concurrency_limit,
            resources: self.resources.unwrap_or_default(),
            exclusive: self.exclusive,
            ..JobSpec::new(steps)
        };
        spec.validate()?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<JobSpec, String> {
        let submission: Submission = serde_json::from_str(text).map_err(|error| error.to_string())?;
        submission.into_spec().map_err(|error| error.to_string())
    }

    const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_flat_form_is_a_job_with_one_binary_step_and_nothing_but_its_variables() {
        let text = format!(
            r#"{{"type":"t","binary_url":"https://h/b","binary_sha256":"{SHA}","arguments":["a"],"env_variables":{{"K":"v"}},"priority":"foreground"}}"#
        );
        let spec = read(&text).expect("a job");
        assert_eq!(spec.environment, EnvironmentBase::Empty);
        assert_eq!(spec.priority, Priority::Foreground);
        assert!(matches!(&spec.steps[..], [Step { command: StepCommand::Binary(binary), .. }] if binary.args == ["a"]));
    }

    #[test]
    fn steps_start_from_the_fixed_environment() {
        let spec = read(r#"{"steps":[{"argv":["true"]},{"run":"exit 3"}],"max_retries":2,"backoff":"linear"}"#)
            .expect("a job");
        assert_eq!((spec.environment, spec.steps.len(), spec.max_retries), (EnvironmentBase::Fixed, 2, 2));
    }

    #[test]
    fn mixed_and_missing_forms_are_told_apart() {
        for (text, told) in [
            (r#"{"type":"t"}"#, "steps: is missing"),
            (r#"{"type":"t","binary_url":"https://h/b"}"#, "binary_sha256: is missing"),
            (r#"{"binary_url":"https://h/b","steps":[{"run":"x"}]}"#, "stands beside"),
            (r#"{"steps":[{"run":"x"}],"env_variables":{}}"#, "use `env` beside `steps`"),
            (r#"{"type":"two words","steps":[{"run":"x"}]}"#, "contains ' '"),
            (r#"{"stepz":[]}"#, "unknown field `stepz`"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
