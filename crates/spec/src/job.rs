//! A job: steps that run one after another in one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;
use utoipa::ToSchema;

use crate::backoff::Backoff;
use crate::expression::Template;
use crate::names::{JobType, QueueName};
use crate::priority::Priority;
use crate::requirements::{Capability, ExecutorKind, Requirements};
use crate::resources::Resources;
use crate::step::{Step, StepCommand};
use crate::step_image::{StepImage, wrong_image, wrong_user};
use crate::time::{Span, Timestamp};
use crate::workflow::{Provider, WorkflowJob};

/// The most labels a job may ask for.
pub const MAX_LABELS: usize = 8;
/// The most steps a job may have.
pub const MAX_STEPS: usize = 1_000;
/// The most bytes of JSON a job may take.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// From what a job's environment starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentBase {
    /// PATH, HOME, TMPDIR, LANG, USER and EXECUTR_*.
    #[default]
    Fixed,
    /// Nothing: the job gets exactly its `env`.
    Empty,
}

/// All that is asked for with a job. What happened to it is not here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The word by which users group their jobs.
    #[serde(rename = "type", default)]
    pub job_type: JobType,
    /// What to run, one after another; the first that fails ends the attempt.
    pub steps: Vec<Step>,
    /// The job's variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// From what the environment starts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub environment: EnvironmentBase,
    /// Names of the worker's own variables to hand on; `*` is all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<String>,
    /// A directory of the worker's machine to run in, instead of a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// After this long the attempt is ended and counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Who goes first.
    #[serde(default)]
    pub priority: Priority,
    /// How often a failed attempt is repeated.
    #[serde(default)]
    pub max_retries: u32,
    /// How long to wait before that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backoff: Backoff,
    /// Where it waits.
    #[serde(default)]
    pub queue: QueueName,
    /// Labels a worker must bear to run it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// A second submission with the same key by the same tenant is answered with the first one's job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Of the jobs with the same key only `concurrency_limit` are ready or running at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// See `concurrency_key`; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_limit: Option<u32>,
    /// Bounds within which it is kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// The worker ends the job by itself after ¾ of a lease without renewal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exclusive: bool,
    /// What it has besides as part of a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Box<WorkflowJob>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a job can't be accepted. The text names the field and what to write there.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// Where in the job: `steps[2].argv`.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: String,
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> SpecError {
    SpecError { field: field.into(), problem: problem.into() }
}

impl JobSpec {
    /// A job with these steps and defaults for all else.
    #[must_use]
    pub fn new(steps: Vec<Step>) -> Self {
        Self {
            job_type: JobType::default(),
            steps,
            env: BTreeMap::new(),
            environment: EnvironmentBase::Fixed,
            inherit: Vec::new(),
            directory: None,
            timeout: None,
            priority: Priority::default(),
            max_retries: 0,
            backoff: Backoff::default(),
            queue: QueueName::default(),
            labels: BTreeMap::new(),
            run_at: None,
            idempotency_key: None,
            concurrency_key: None,
            concurrency_limit: None,
            resources: Resources::default(),
            exclusive: false,
            workflow: None,
        }
    }

    /// How many jobs with this one's concurrency key may be ready or running at a time.
    #[must_use]
    pub fn concurrency(&self) -> Option<(&str, u32)> {
        self.concurrency_key.as_deref().map(|key| (key, self.concurrency_limit.unwrap_or(1)))
    }

    /// What it asks of a worker.
    #[must_use]
    pub fn requirements(&self) -> Requirements {
        let of_workflow =
            self.workflow.iter().flat_map(|workflow| workflow.workflow_env_from.iter().chain(&workflow.env_from));
        let mut providers = of_workflow.chain(self.steps.iter().flat_map(|step| &step.env_from));
        let executor = self.workflow.as_ref().map_or(ExecutorKind::Local, |workflow| workflow.executor.kind);
        // A container's bounds are kept by its engine.
        let bounds = if executor == ExecutorKind::Oci { Resources::default() } else { self.resources };
        let asked = [
            (bounds.cpu.is_some(), Capability::LimitCpu),
            (bounds.memory.is_some(), Capability::LimitMemory),
            (bounds.pids.is_some(), Capability::LimitPids),
            (self.directory.is_some(), Capability::Directory),
            (!self.inherit.is_empty(), Capability::Inherit),
            (providers.any(Provider::runs_a_program), Capability::Providers),
            (
                executor != ExecutorKind::Oci && self.steps.iter().any(|step| step.image.is_some()),
                Capability::Containers,
            ),
        ];
        Requirements {
            executor,
            labels: self.labels.clone(),
            capabilities: asked.into_iter().filter_map(|(is, capability)| is.then_some(capability)).collect(),
            worker: None,
        }
    }

    /// Checks what types alone can't.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.steps.is_empty() {
            return Err(wrong("steps", "is empty; give at least one step"));
        }
        if self.steps.len() > MAX_STEPS {
            return Err(wrong("steps", format!("has {} entries; at most {MAX_STEPS} are allowed", self.steps.len())));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let at = format!("steps[{index}]");
            validate_step(&at, step)?;
            if let Some(image) = &step.image {
                self.validate_image(&at, image)?;
            }
        }
        validate_env("env", &self.env)?;
        for (index, name) in self.inherit.iter().enumerate() {
            if name != "*" {
                validate_variable(&format!("inherit[{index}]"), name)?;
            }
        }
        if let Some(directory) = &self.directory
            && (!directory.starts_with('/') || directory.contains('\0'))
        {
            return Err(wrong("directory", format!("`{directory}` is not an absolute path")));
        }
        if self.labels.len() > MAX_LABELS {
            return Err(wrong(
                "labels",
                format!("has {} entries; at most {MAX_LABELS} are allowed", self.labels.len()),
            ));
        }
        for (key, value) in &self.labels {
            if key.is_empty()
                || key.len() > 100
                || value.len() > 200
                || (key.clone() + value).contains(char::is_control)
            {
                return Err(wrong(
                    format!("labels.{key}"),
                    "give a name of 1 to 100 bytes and a value of up to 200, without control characters",
                ));
            }
        }
        for (field, key) in [("idempotency_key", &self.idempotency_key), ("concurrency_key", &self.concurrency_key)] {
            if let Some(key) = key
                && (key.is_empty() || key.len() > 256 || key.contains('\0'))
            {
                return Err(wrong(field, "give 1 to 256 bytes without NUL"));
            }
        }
        match (&self.concurrency_key, self.concurrency_limit) {
            (None, Some(_)) => return Err(wrong("concurrency_limit", "needs a `concurrency_key` beside it")),
            (_, Some(0)) => return Err(wrong("concurrency_limit", "0 would never run; give at least 1")),
            _ => {}
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            return Err(wrong("timeout", "0s would end the job at once; leave it out for no limit"));
        }
        if self.resources.memory.is_some_and(|memory| memory.0 < 1 << 20) {
            return Err(wrong("resources.memory", "no program runs in less than 1Mi"));
        }
        if self.resources.cpu.is_some_and(|cpu| cpu.0 < 10) {
            return Err(wrong("resources.cpu", "give at least 10m"));
        }
        if self.resources.pids == Some(0) {
            return Err(wrong("resources.pids", "give at least 1"));
        }
        Ok(())
    }
}

impl JobSpec {
    /// Whether a step may have a container of its own, and that one.
    fn validate_image(&self, at: &str, image: &StepImage) -> Result<(), SpecError> {
        let kind = self.workflow.as_ref().map_or(ExecutorKind::Local, |workflow| workflow.executor.kind);
        if !matches!(kind, ExecutorKind::Local | ExecutorKind::Oci) {
            let kind = kind.as_str();
            let text =
                format!("is for jobs on `local` and `oci`; this one is on `{kind}`, which has its own place for steps");
            return Err(wrong(format!("{at}.image"), text));
        }
        if self.directory.is_some() {
            let text = "mounts the job directory, which it gives to its user; leave out the job's `directory`";
            return Err(wrong(format!("{at}.image"), text));
        }
        // What stands for a value of a matrix is none yet.
        if let Some(problem) = wrong_image(&image.name).filter(|_| !Template::is_in(&image.name)) {
            return Err(wrong(format!("{at}.image"), problem));
        }
        if let Some(problem) = image.user.as_deref().and_then(wrong_user) {
            return Err(wrong(format!("{at}.image.user"), problem));
        }
        validate_env(&format!("{at}.image.container_env"), &image.container_env)
    }
}

fn validate_step(at: &str, step: &Step) -> Result<(), SpecError> {
    match &step.command {
        StepCommand::Argv(argv) => {
            if argv.first().is_none_or(String::is_empty) {
                return Err(wrong(format!("{at}.argv"), "needs a program as its first word"));
            }
            no_nul(&format!("{at}.argv"), argv)?;
        }
        StepCommand::Run(script) => no_nul(&format!("{at}.run"), std::slice::from_ref(script))?,
        StepCommand::Binary(binary) => {
            let known =
                ["http://", "https://", "file:///", "blob:"].iter().any(|scheme| binary.url.starts_with(scheme));
            if !known || binary.url.contains(char::is_control) {
                return Err(wrong(
                    format!("{at}.binary.url"),
                    format!(
                        "`{}` is not a URL; use http://, https://, file:/// or blob:<sha256>",
                        binary.url.escape_debug()
                    ),
                ));
            }
            no_nul(&format!("{at}.binary.args"), &binary.args)?;
        }
    }
    if step.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
        return Err(wrong(format!("{at}.timeout"), "0s would end the step at once; leave it out for no limit"));
    }
    validate_env(&format!("{at}.env"), &step.env)
}

fn no_nul(field: &str, words: &[String]) -> Result<(), SpecError> {
    match words.iter().position(|word| word.contains('\0')) {
        Some(index) => {
            Err(wrong(format!("{field}[{index}]"), "contains a NUL character, which no program can be given"))
        }
        None => Ok(()),
    }
}

fn validate_variable(field: &str, name: &str) -> Result<(), SpecError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(wrong(
            field,
            format!("`{}` can't be a variable's name; leave out `=` and NUL", name.escape_debug()),
        ));
    }
    Ok(())
}

fn validate_env(field: &str, env: &BTreeMap<String, String>) -> Result<(), SpecError> {
    for (name, value) in env {
        validate_variable(field, name)?;
        if value.contains('\0') {
            return Err(wrong(format!("{field}.{name}"), "contains a NUL character, which no program can be given"));
        }
    }
    Ok(())
}

/// A [`JobSpec`] as its JSON text: what stores keep and leases carry, parsed only where it is run or shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpecJson(Arc<RawValue>);

impl SpecJson {
    /// Writes `spec` down.
    ///
    /// # Errors
    /// When the text would be longer than [`MAX_SPEC_BYTES`].
    pub fn write(spec: &JobSpec) -> Result<Self, SpecError> {
        let text = serde_json::to_string(spec).map_err(|error| wrong("job", error.to_string()))?;
        if text.len() > MAX_SPEC_BYTES {
            return Err(wrong(
                "job",
                format!(
                    "takes {} bytes of JSON; at most {MAX_SPEC_BYTES} are allowed, so put large inputs into files or blobs",
                    text.len()
                ),
            ));
        }
        Self::from_text(text).map_err(|error| wrong("job", error.to_string()))
    }

    /// Takes a text that a store kept.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Self(raw.into()))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Reads the job.
    ///
    /// # Errors
    /// When the text is no job of this version.
    pub fn read(&self) -> Result<JobSpec, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

impl PartialEq for SpecJson {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::Bytes;
    use crate::workflow::ExecutorChoice;

    fn valid() -> JobSpec {
        JobSpec::new(vec![Step::new(StepCommand::Argv(vec!["true".to_owned()]))])
    }

    #[test]
    fn a_job_reads_back_from_what_it_is_written_as() {
        let mut spec = valid();
        spec.resources.memory = Some(Bytes(64 << 20));
        spec.labels.insert("gpu".to_owned(), "a100".to_owned());
        let json = SpecJson::write(&spec).expect("small");
        assert_eq!(json.read().expect("a job"), spec);
        assert_eq!(spec.requirements().class().as_str(), "local +limit_memory gpu=a100");
    }

    fn image(name: &str, user: &str) -> StepImage {
        StepImage { name: name.to_owned(), user: Some(user.to_owned()), ..StepImage::default() }
    }

    #[test]
    fn a_step_with_an_image_asks_for_a_worker_that_runs_containers() {
        let mut spec = valid();
        spec.steps[0].image = Some(image("a", "1"));
        assert_eq!(spec.requirements().class().as_str(), "local +containers");
        assert_eq!(spec.validate(), Ok(()));
        let of = |kind| ExecutorChoice { kind, name: "x".to_owned(), options: serde_json::Value::Null };
        let on = |kind| Some(Box::new(WorkflowJob { executor: of(kind), ..WorkflowJob::default() }));
        spec.workflow = on(ExecutorKind::Oci);
        assert_eq!(spec.requirements().class().as_str(), "oci");
        spec.workflow = on(ExecutorKind::Hooks);
        assert!(spec.validate().expect_err("hooks").problem.contains("`local` and `oci`"));
    }

    #[test]
    fn a_source_of_variables_that_is_a_program_asks_for_a_worker_that_runs_it() {
        let mut spec = valid();
        spec.steps[0].env_from = vec![Provider::Required(vec!["A".to_owned()])];
        assert_eq!(spec.requirements().class().as_str(), "local");
        spec.steps[0].env_from = vec![Provider::Command(vec!["vault".to_owned()])];
        assert_eq!(spec.requirements().class().as_str(), "local +providers");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        type Break = fn(&mut JobSpec);
        let cases: [(Break, &str); 12] = [
            (|job| job.steps.clear(), "steps"),
            (|job| job.steps[0].command = StepCommand::Argv(vec![]), "steps[0].argv"),
            (|job| job.steps[0].command = StepCommand::Argv(vec!["a".into(), "\0".into()]), "steps[0].argv[1]"),
            (|job| drop(job.env.insert("A=B".into(), String::new())), "env"),
            (|job| job.directory = Some("here".into()), "directory"),
            (|job| job.labels = (0..9).map(|n| (n.to_string(), String::new())).collect(), "labels"),
            (|job| job.concurrency_limit = Some(2), "concurrency_limit"),
            (|job| job.timeout = Some(Span::default()), "timeout"),
            (|job| job.resources.memory = Some(Bytes(5)), "resources.memory"),
            (|job| job.steps[0].image = Some(image("a b", "1")), "steps[0].image"),
            (|job| job.steps[0].image = Some(image("a", ":")), "steps[0].image.user"),
            (
                |job| {
                    job.steps[0].image = Some(image("a", "1"));
                    job.directory = Some("/here".into());
                },
                "steps[0].image",
            ),
        ];
        assert_eq!(valid().validate(), Ok(()));
        for (break_it, field) in cases {
            let mut spec = valid();
            break_it(&mut spec);
            assert_eq!(spec.validate().expect_err(field).field, field);
        }
    }

    #[test]
    fn a_binary_needs_a_url_that_can_be_fetched() {
        let mut spec = valid();
        spec.steps[0].command = StepCommand::Binary(crate::BinaryStep {
            url: "ftp://x".to_owned(),
            sha256: crate::Digest::of(b""),
            args: vec![],
        });
        assert_eq!(spec.validate().expect_err("ftp").field, "steps[0].binary.url");
    }
}
