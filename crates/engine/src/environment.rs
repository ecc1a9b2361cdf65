//! A step's environment.
//!
//! ```text
//! flat binary job     exactly its variables
//! other jobs          fixed base ← inherited ← what is declared              (a later one wins)
//! fixed base          PATH, HOME, TMPDIR, LANG, USER, EXECUTR_JOB_ID, EXECUTR_JOB_TYPE, EXECUTR_ATTEMPT
//! in a container      what its image and its executor's settings have, below all of these and instead of this
//!                     machine's PATH, LANG and USER
//! of workflows also   EXECUTR_WORKFLOW, EXECUTR_RUN_ID, EXECUTR_JOB_NAME, EXECUTR_STEP, EXECUTR_STEP_NAME,
//!                     JOB_ENV, STEP_OUTPUT
//! ```

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use executr_api::Fence;
use executr_spec::{EnvironmentBase, JobSpec};

use crate::host::{DEFAULT_PATH, HostContext, Inherit};

/// Variables with this beginning are ours.
pub(crate) const OURS: &[u8] = b"EXECUTR_";

/// Where a job runs, as far as its environment shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) host: &'a HostContext,
    pub(crate) inherit: Inherit,
    pub(crate) fence: &'a Fence,
    /// The job directory: HOME.
    pub(crate) directory: &'a Path,
    /// Whether the job directory goes with the job, and temporary files may with it.
    pub(crate) is_sandbox: bool,
    /// Whether its place is set up by scripts of somebody's own.
    pub(crate) is_hooked: bool,
    /// What steps find in a place that has variables of its own, each `KEY=VALUE`.
    pub(crate) place: Option<&'a [Bytes]>,
    /// Of a workflow's job.
    pub(crate) of_run: Option<&'a OfRun<'a>>,
}

/// What a step of a workflow's job is told of where it is.
#[derive(Debug)]
pub(crate) struct OfRun<'a> {
    pub(crate) run: String,
    pub(crate) workflow: &'a str,
    pub(crate) job: &'a str,
    pub(crate) step: String,
    /// Where to hand over variables.
    pub(crate) variables: PathBuf,
    /// Where to hand over outputs.
    pub(crate) outputs: PathBuf,
}

/// Each variable as `KEY=VALUE`; what is declared later wins.
pub(crate) fn of_step<'a>(
    spec: &'a JobSpec,
    around: Surroundings<'a>,
    declared: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Vec<Bytes> {
    let mut variables: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    let (id, attempt) = (around.fence.job.to_string(), around.fence.attempt.to_string());
    if spec.environment == EnvironmentBase::Fixed {
        let directory = around.directory.as_os_str().as_bytes();
        // A place with variables of its own shows none of this machine's.
        let host = |name| if around.place.is_some() { None } else { around.host.variable(name) };
        variables.insert(b"PATH", host("PATH").unwrap_or(DEFAULT_PATH.as_bytes()));
        // What isn't in a sandbox of ours, as hooks, needs what is in its user's home.
        let home = if around.is_hooked { host("HOME").unwrap_or(directory) } else { directory };
        variables.insert(b"HOME", home);
        variables.insert(b"TMPDIR", if around.is_sandbox { directory } else { b"/tmp" });
        variables.insert(b"LANG", host("LANG").unwrap_or(b"C.UTF-8"));
        for variable in around.place.into_iter().flatten() {
            let at = variable.iter().position(|byte| *byte == b'=').unwrap_or(variable.len());
            let (name, value) = (&variable[..at], variable.get(at + 1..).unwrap_or_default());
            // A home of the image's own would be shared by all jobs in the container.
            if !name.is_empty() && name != b"HOME" {
                variables.insert(name, value);
            }
        }
        if let Some(user) = host("USER").or_else(|| host("LOGNAME")) {
            variables.insert(b"USER", user);
        }
    }
    inherit(spec, around, &mut variables);
    if spec.environment == EnvironmentBase::Fixed {
        variables.insert(b"EXECUTR_JOB_ID", id.as_bytes());
        variables.insert(b"EXECUTR_JOB_TYPE", spec.job_type.as_str().as_bytes());
        variables.insert(b"EXECUTR_ATTEMPT", attempt.as_bytes());
    }
    if let Some(of_run) = around.of_run {
        variables.insert(b"EXECUTR_WORKFLOW", of_run.workflow.as_bytes());
        variables.insert(b"EXECUTR_RUN_ID", of_run.run.as_bytes());
        variables.insert(b"EXECUTR_JOB_NAME", of_run.job.as_bytes());
        // In a hook that runs a step the first is the step's path.
        variables.insert(b"EXECUTR_STEP", of_run.step.as_bytes());
        variables.insert(b"EXECUTR_STEP_NAME", of_run.step.as_bytes());
        variables.insert(b"JOB_ENV", of_run.variables.as_os_str().as_bytes());
        variables.insert(b"STEP_OUTPUT", of_run.outputs.as_os_str().as_bytes());
    }
    for (name, value) in declared {
        variables.insert(name.as_bytes(), value.as_bytes());
    }
    // One buffer for all: each variable is a window into it.
    let size = variables.iter().map(|(name, value)| name.len() + value.len() + 1).sum();
    let mut buffer = BytesMut::with_capacity(size);
    let mut words = Vec::with_capacity(variables.len());
    for (name, value) in variables {
        buffer.put_slice(name);
        buffer.put_u8(b'=');
        buffer.put_slice(value);
        words.push(buffer.split().freeze());
    }
    words
}

fn inherit<'a>(spec: &JobSpec, around: Surroundings<'a>, variables: &mut BTreeMap<&'a [u8], &'a [u8]>) {
    if around.inherit == Inherit::Nothing || spec.inherit.is_empty() {
        return;
    }
    let all = spec.inherit.iter().any(|name| name == "*");
    for (name, value) in &around.host.variables {
        let name = name.as_bytes();
        let asked = all || spec.inherit.iter().any(|asked| asked.as_bytes() == name);
        let allowed = around.inherit == Inherit::All || !name.starts_with(OURS);
        if asked && allowed {
            variables.insert(name, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use executr_spec::{JobId, LeaseId, Step, StepCommand};

    use super::*;

    fn environment(spec: &JobSpec, inherit: Inherit) -> Vec<String> {
        let variables = [("PATH", "/opt/bin"), ("USER", "ann"), ("EDITOR", "ed"), ("EXECUTR_TOKEN", "secret")];
        let host = HostContext {
            variables: variables.map(|(name, value)| (name.into(), value.into())).into(),
            ..HostContext::default()
        };
        let fence = Fence { job: JobId(uuid::Uuid::nil()), attempt: 2, lease: LeaseId(uuid::Uuid::nil()) };
        let around = Surroundings {
            host: &host,
            inherit,
            fence: &fence,
            directory: Path::new("/jobs/j"),
            is_sandbox: true,
            is_hooked: false,
            place: None,
            of_run: None,
        };
        let words = of_step(spec, around, spec.env.iter().chain(&spec.steps[0].env));
        words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    fn spec() -> JobSpec {
        let mut spec = JobSpec::new(vec![Step::new(StepCommand::Run("env".to_owned()))]);
        spec.env.insert("A".to_owned(), "job's".to_owned());
        spec.env.insert("B".to_owned(), "1=2".to_owned());
        spec.steps[0].env.insert("A".to_owned(), "step's".to_owned());
        spec
    }

    #[test]
    fn a_flat_job_gets_exactly_its_variables() {
        let spec = JobSpec { environment: EnvironmentBase::Empty, ..spec() };
        assert_eq!(environment(&spec, Inherit::All), ["A=step's", "B=1=2"]);
    }

    #[test]
    fn others_start_from_the_fixed_base() {
        assert_eq!(
            environment(&spec(), Inherit::Nothing),
            [
                "A=step's",
                "B=1=2",
                "EXECUTR_ATTEMPT=2",
                "EXECUTR_JOB_ID=00000000-0000-0000-0000-000000000000",
                "EXECUTR_JOB_TYPE=command",
                "HOME=/jobs/j",
                "LANG=C.UTF-8",
                "PATH=/opt/bin",
                "TMPDIR=/jobs/j",
                "USER=ann",
            ]
        );
    }

    #[test]
    fn a_place_with_variables_of_its_own_shows_none_of_this_machine() {
        let spec = spec();
        let host = HostContext { variables: [("PATH".into(), "/opt/bin".into())].into(), ..HostContext::default() };
        let fence = Fence { job: JobId(uuid::Uuid::nil()), attempt: 2, lease: LeaseId(uuid::Uuid::nil()) };
        let place = ["A=image's", "C=image's", "LANG=de", "HOME=/root"].map(|text| Bytes::from_static(text.as_bytes()));
        let around = Surroundings {
            host: &host,
            inherit: Inherit::All,
            fence: &fence,
            directory: Path::new("/jobs/j"),
            is_sandbox: true,
            is_hooked: false,
            place: Some(&place),
            of_run: None,
        };
        let words = of_step(&spec, around, &spec.env);
        let has = |word: &str| words.iter().any(|found| found == word);
        assert!(has("A=job's") && has("C=image's") && has("LANG=de") && has("HOME=/jobs/j"), "{words:?}");
        assert!(has(&format!("PATH={DEFAULT_PATH}")), "{words:?}");
    }

    #[test]
    fn inherited_is_what_is_asked_for_and_allowed() {
        let mut spec = JobSpec { inherit: vec!["EDITOR".to_owned(), "EXECUTR_TOKEN".to_owned()], ..spec() };
        let has = |spec: &JobSpec, inherit, word: &str| environment(spec, inherit).iter().any(|found| found == word);
        assert!(!has(&spec, Inherit::Nothing, "EDITOR=ed"));
        assert!(has(&spec, Inherit::AllButOurs, "EDITOR=ed"));
        assert!(!has(&spec, Inherit::AllButOurs, "EXECUTR_TOKEN=secret"));
        assert!(has(&spec, Inherit::All, "EXECUTR_TOKEN=secret"));
        spec.inherit = vec!["*".to_owned()];
        assert!(has(&spec, Inherit::AllButOurs, "EDITOR=ed"));
        assert!(!has(&spec, Inherit::AllButOurs, "EXECUTR_TOKEN=secret"));
    }
}
