//! A workflow with everything resolved that can be resolved before it runs: matrices multiplied, inheritance applied,
//! jobs chosen.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::provider::Provider;
use super::selection::{FileSelection, ModifiedFiles};
use crate::condition::Condition;
use crate::digest::Digest;
use crate::job::JobSpec;
use crate::requirements::ExecutorKind;
use crate::time::Span;

/// The most jobs of a run.
pub const MAX_RUN_JOBS: usize = 100_000;
/// The most needs of all jobs of a run together.
pub const MAX_RUN_NEEDS: usize = 1_000_000;

/// A run before it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// The workflow's name.
    pub name: String,
    /// Whether the first failure stops what has not started.
    #[serde(default = "yes")]
    pub fail_fast: bool,
    /// After this long the run is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The tree of the repository that jobs get a copy of, and sources of variables find their files in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
    /// The jobs; each after those it needs.
    #[serde(deserialize_with = "bounded")]
    pub jobs: Vec<PlannedJob>,
}

/// Reads jobs, at most [`MAX_RUN_JOBS`]. The bound holds while reading: a small text can hold very many small jobs, each of
/// which is large once read.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PlannedJob>, D::Error> {
    struct Jobs;

    impl<'de> Visitor<'de> for Jobs {
        type Value = Vec<PlannedJob>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an array of at most {MAX_RUN_JOBS} jobs")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let (mut jobs, mut needs) = (Vec::new(), 0);
            while let Some(job) = entries.next_element::<PlannedJob>()? {
                needs += job.needs.len();
                if jobs.len() == MAX_RUN_JOBS || needs > MAX_RUN_NEEDS {
                    return Err(A::Error::custom(format_args!(
                        "a run has at most {MAX_RUN_JOBS} jobs, and these at most {MAX_RUN_NEEDS} needs together; make several runs of it"
                    )));
                }
                jobs.push(job);
            }
            Ok(jobs)
        }
    }

    deserializer.deserialize_seq(Jobs)
}

fn yes() -> bool {
    true
}

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedJob {
    /// Its name, unique in the run: `test-os-linux-py-3` for one cell of a matrix.
    pub name: String,
    /// The jobs it waits for, by their places in [`RunPlan::jobs`]; always smaller than its own. Sorted, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<u32>,
    /// When it runs. A [`Condition::Shell`] stands in `spec` too: it is the attempt's first act.
    #[serde(default, rename = "if", skip_serializing_if = "is_default")]
    #[schema(value_type = String)]
    pub condition: Condition,
    /// Whether its failure counts as success for the run and for those that need it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub continue_on_error: bool,
    /// What to run; `spec.workflow` is there.
    pub spec: JobSpec,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a job has besides when it belongs to a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkflowJob {
    /// The workflow's name.
    pub workflow: String,
    /// The job's name in the run.
    pub name: String,
    /// Where it runs.
    pub executor: ExecutorChoice,
    /// The values of its cell of the matrix; `matrix.<dimension>` in expressions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub matrix: BTreeMap<String, Value>,
    /// What its needs are called in the file, and which jobs of the run that means; `needs.<name>` in expressions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, Vec<String>>,
    /// A script that decides first whether the attempt goes on: 0 yes, 1 skip, else failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The tree that its job directory starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
    /// The tree that sources of variables find their files in: the plan's `source`, whether or not the job gets a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_source: Option<Digest>,
    /// Sources of variables below `workflow_env`, the first the weakest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workflow_env_from: Vec<Provider>,
    /// The workflow's variables, below the job's sources.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub workflow_env: BTreeMap<String, String>,
    /// Sources of variables below the job's `env`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<Provider>,
    /// Variables from `--env-file` and, over them, from the command line: above all others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, String>,
    /// Names of secrets that the worker resolves; each becomes a variable of its name, and is masked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Artifacts put into the job directory before the steps, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<ArtifactInput>,
    /// What is saved after the steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<ArtifactOutput>,
    /// Files put into the job directory, there afresh for every step; by path from the job directory.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, SandboxFile>,
    /// What of `source` goes into the job directory, a later one over those before it; all when there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selected: Vec<FileSelection>,
    /// Which of the files that its steps changed come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<ModifiedFiles>,
}

impl WorkflowJob {
    /// The names of the artifacts that it makes.
    pub fn artifacts(&self) -> impl Iterator<Item = &str> {
        let modified = self.modified.iter().map(|modified| modified.name.as_str());
        self.outputs.iter().map(|output| output.name.as_str()).chain(modified)
    }
}

/// The executor a job runs on, as its workflow names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutorChoice {
    /// The kind.
    pub kind: ExecutorKind,
    /// Its name: jobs with the same one share a workspace. The kind's name by default.
    pub name: String,
    /// Its settings, as its kind reads them.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object)]
    pub options: Value,
}

impl ExecutorChoice {
    /// Whether its jobs are in one container: all of `oci` that don't say `mode: isolated`.
    #[must_use]
    pub fn shares_a_container(&self) -> bool {
        self.kind == ExecutorKind::Oci && self.options.get("mode").is_none_or(|mode| mode != "isolated")
    }
}

/// An artifact a job gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArtifactInput {
    /// The artifact's name.
    pub name: String,
    /// The job of the run that makes it.
    pub from: String,
    /// Into which directory, from the job directory; itself when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// An artifact a job makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArtifactOutput {
    /// The artifact's name, unique in the run.
    pub name: String,
    /// The file or directory, from the job directory.
    pub path: String,
}

/// A file that is put into the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxFile {
    /// What is in it.
    #[serde(flatten)]
    pub content: FileContent,
    /// Its permissions.
    #[serde(default)]
    pub mode: FileMode,
}

/// What is in a file. `${{ }}` in `text` is evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileContent {
    /// This text.
    Text(String),
    /// These bytes, in base64.
    Base64(String),
    /// A blob of the server.
    Blob(Digest),
}

/// A file's permissions, written in octal: `"0644"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^0?[0-7]{3}$")]
pub struct FileMode(pub u32);

impl Default for FileMode {
    /// Read only.
    fn default() -> Self {
        Self(0o444)
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(Self).ok_or_else(|| format!("`{text}` is no file mode; write it in octal, like \"0644\""))
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        format!("{:04o}", mode.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_too_many_jobs_or_needs_is_refused_while_it_is_read() {
        let job = |needs: &str| format!(r#"{{"name":"a","needs":[{needs}],"spec":{{"steps":[]}}}}"#);
        let read = |jobs: Vec<String>| {
            serde_json::from_str::<RunPlan>(&format!(r#"{{"name":"w","jobs":[{}]}}"#, jobs.join(",")))
        };
        assert_eq!(read(vec![job(""); 3]).expect("three jobs").jobs.len(), 3);
        let error = read(vec![job(""); MAX_RUN_JOBS + 1]).expect_err("too many jobs");
        assert!(error.to_string().contains("at most 100000 jobs"), "{error}");
        let needs = vec!["0"; MAX_RUN_NEEDS / 2].join(",");
        let error = read(vec![job(&needs), job(&needs), job("0")]).expect_err("too many needs");
        assert!(error.to_string().contains("1000000 needs"), "{error}");
    }
}
