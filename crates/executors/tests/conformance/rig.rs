//! Runs a step and gathers what it came to.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use executr_executors::contract::{
    Event, Execution, Exit, JobPlan, Limits, Place, Program, StartFailed, StepPlan, Stream, Workspace,
};
use executr_spec::JobId;

/// A workspace, and a directory for the test's own files on the same machine.
pub(crate) struct Rig {
    pub(crate) workspace: Arc<dyn Workspace>,
    pub(crate) directory: tempfile::TempDir,
}

impl Rig {
    /// Processes of jobs that are left, wherever they run: each has a path of the rig in its arguments, and the numbers of a
    /// place of its own are no use here.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let path = self.directory.path().as_os_str().as_encoded_bytes();
        let is_of_a_job = |process: &i32| {
            let words = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            // What serves all jobs of a place is none of a job.
            let mut word = words.split(|byte| *byte == 0);
            let is_client =
                word.next().is_some_and(|program| program.ends_with(b"ssh") || program.starts_with(b"ssh:"));
            let is_agent = word.next().is_some_and(|word| [&b"reach"[..], b"dwell", b"sweep"].contains(&word));
            let serves = is_client || is_agent;
            let is_other = *process != std::process::id().cast_signed() && !serves;
            is_other && words.windows(path.len()).any(|window| window == path)
        };
        let entries = std::fs::read_dir("/proc").unwrap();
        let processes = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        processes.filter(is_of_a_job).collect()
    }

    /// Cleans up and looks whether anything of a job is left.
    pub(crate) async fn end(self) {
        self.workspace.cleanup().await;
        drop(self.workspace);
        let left = left_in(self.directory.path());
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// What lies in the work directory of a rig.
pub(crate) fn left_in(directory: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(directory.join("work")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) exit: Option<Exit>,
    pub(crate) failed: Option<StartFailed>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Outcome {
    pub(crate) fn exited(code: i32, stdout: &str) -> Self {
        Self { exit: Some(Exit::Code(code)), failed: None, stdout: stdout.as_bytes().to_vec(), stderr: vec![] }
    }
}

pub(crate) fn plan() -> JobPlan {
    let job = JobId(uuid::Uuid::new_v4());
    JobPlan { job, attempt: 1, place: Place::Sandbox, limits: Limits::default() }
}

pub(crate) fn argv(words: &[&[u8]]) -> StepPlan {
    let words = words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
    let env = vec![Bytes::from_static(b"PATH=/usr/local/bin:/usr/bin:/bin")];
    StepPlan { program: Program::Argv(words), env, workdir: None, last: true }
}

pub(crate) fn sh(script: &str) -> StepPlan {
    StepPlan { program: Program::Script(Bytes::copy_from_slice(script.as_bytes())), ..argv(&[]) }
}

/// Runs one script as a job of its own.
pub(crate) async fn run(rig: &Rig, job: JobPlan, script: &str) -> Outcome {
    run_step(rig, job, sh(script)).await
}

/// Runs one step as a job of its own.
pub(crate) async fn run_step(rig: &Rig, job: JobPlan, step: StepPlan) -> Outcome {
    let mut sandbox = rig.workspace.setup_job(job).await.unwrap();
    let mut execution = sandbox.execute(step).await.unwrap();
    let outcome = gather(execution.as_mut()).await;
    drop(execution);
    sandbox.cleanup().await.unwrap();
    outcome
}

/// Reads to the end of a step, and checks the order of what is told.
pub(crate) async fn gather(execution: &mut dyn Execution) -> Outcome {
    let mut outcome = Outcome { exit: None, failed: None, stdout: vec![], stderr: vec![] };
    while let Some(event) = execution.next().await.unwrap() {
        assert!(outcome.exit.is_none() && outcome.failed.is_none(), "nothing comes after the end");
        match event {
            Event::InputTaken { .. } => panic!("nobody wrote any"),
            Event::Started { .. } => assert!(outcome.stdout.is_empty() && outcome.stderr.is_empty()),
            Event::Output { stream, offset, data } => {
                let gathered = match stream {
                    Stream::Stdout => &mut outcome.stdout,
                    Stream::Stderr => &mut outcome.stderr,
                };
                assert_eq!(offset, gathered.len() as u64);
                gathered.extend_from_slice(&data);
            }
            Event::Ended(ended) => {
                assert_eq!(ended.removal_failure, None);
                outcome.exit = Some(ended.exit);
            }
            Event::StartFailed(failed) => outcome.failed = Some(failed),
        }
    }
    outcome
}
