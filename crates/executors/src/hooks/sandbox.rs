//! Where hooks run: a scratch directory and a keeper of this machine, for a workspace or for one attempt.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_spec::workflow::ModifiedFiles;
use executr_tree::{Changes, MadeTree, Packed};

use super::options::{Hook, HooksOptions};
use super::state::{Left, Said};
use crate::contract::{
    self, Act, Event, Execution, ExecutorError, FileToPut, Handover, Offer, Program, PutTo, Sandbox, StepPlan,
    TakeFrom, TreeAtHand,
};
use crate::here::{self, Looks, Writing};

/// The copy of the repository that a workspace's hooks start in.
const REPOSITORY: &str = "repository";
const DRIVER: &str = include_str!("driver.bash");

/// For whom hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Workspace,
    Job,
}

/// A place whose hooks are somebody's scripts.
pub struct HookedSandbox {
    /// A sandbox of this machine: its directory is only ours.
    scratch: Box<dyn Sandbox>,
    options: Arc<HooksOptions>,
    level: Level,
    left: Left,
    /// The environment of the first hook: what isn't so in a later one's is declared.
    base: Option<Vec<Bytes>>,
    /// The first hook was started, and the last wasn't yet.
    begun: bool,
    steps: u32,
    /// Which hook failed last, and where.
    failure: Option<String>,
    looks: Looks,
    writing: Writing,
}

impl HookedSandbox {
    pub(super) async fn new(
        mut scratch: Box<dyn Sandbox>,
        options: Arc<HooksOptions>,
        level: Level,
        left: Option<Left>,
    ) -> Result<Self, ExecutorError> {
        scratch.make_directory().await?;
        let start = scratch.directory().join(REPOSITORY);
        let failed = |source| ExecutorError::Directory { path: start.clone(), source };
        fs::write(scratch.directory().join("driver"), DRIVER).map_err(failed)?;
        if left.is_none() {
            fs::create_dir(&start).map_err(failed)?;
        }
        let left = left.unwrap_or_else(|| Left::in_directory(start));
        Ok(Self {
            scratch,
            options,
            level,
            left,
            base: None,
            begun: false,
            steps: 0,
            failure: None,
            looks: Looks::default(),
            writing: Writing::default(),
        })
    }

    /// What its hooks left so far.
    pub(super) fn left(&self) -> &Left {
        &self.left
    }

    fn artifacts(&self) -> PathBuf {
        self.scratch.directory().join("artifacts")
    }

    /// Starts a hook; `also` is over all else in its environment.
    async fn run(
        &mut self,
        hook: Hook,
        env: &[Bytes],
        also: &[(&str, &Path)],
    ) -> Result<Option<Box<dyn Execution + '_>>, ExecutorError> {
        self.failure = None;
        self.writing.over().await;
        let Some(script) = self.options.script(hook) else { return Ok(None) };
        let scratch = self.scratch.directory().to_owned();
        let file = scratch.join(hook.as_str());
        let state = scratch.join("state");
        let failed = |source| ExecutorError::Directory { path: scratch.clone(), source };
        fs::write(&file, script).map_err(failed)?;
        match fs::remove_file(&state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let base = self.base.get_or_insert_with(|| env.to_vec());
        let mut env = self.left.environment(base, env);
        let artifacts = scratch.join("artifacts");
        // The second name is the one that scripts for the original know.
        let always = [("EXECUTR_ARTIFACTS_DIR", &*artifacts), ("NIXACTIONS_ARTIFACTS_DIR", &*artifacts)];
        for (name, value) in always.iter().chain(also) {
            let beginning = [name.as_bytes(), b"="].concat();
            env.retain(|variable| !variable.starts_with(&beginning));
            env.push([&beginning[..], value.as_os_str().as_bytes()].concat().into());
        }
        // A hook may have removed the directory it left.
        let start = if self.left.directory.is_dir() { self.left.directory.clone() } else { scratch.clone() };
        let word = |path: &Path| Bytes::copy_from_slice(path.as_os_str().as_bytes());
        let plan = StepPlan {
            program: Program::Argv(vec![
                Bytes::from_static(b"bash"),
                word(&scratch.join("driver")),
                word(&file),
                word(&state),
            ]),
            env: env.clone(),
            workdir: Some(start),
            last: false,
        };
        let execution = self.scratch.execute(plan).await?;
        Ok(Some(Box::new(HookExecution {
            execution,
            hook,
            state,
            env,
            left: &mut self.left,
            failure: &mut self.failure,
        })))
    }

    /// Writes a step as a program of its own, so that a hook can start it where it likes.
    fn write_step(&mut self, step: StepPlan) -> io::Result<PathBuf> {
        self.steps += 1;
        let path = self.scratch.directory().join(format!("step-{}", self.steps));
        let mut text = Vec::new();
        match step.program {
            Program::Script(script) => {
                if !script.starts_with(b"#!") {
                    text.extend_from_slice(b"#!/bin/sh -e\n");
                }
                text.extend_from_slice(&script);
            }
            Program::Argv(words) => write_words(&words, &mut text),
            Program::Brought { program, args } => write_words(&contract::brought(program, args), &mut text),
        }
        write_program(&path, &text)?;
        let Some(workdir) = step.workdir else { return Ok(path) };
        let mut text = b"#!/bin/sh\ncd ".to_vec();
        quote(workdir.as_os_str().as_bytes(), &mut text);
        text.extend_from_slice(b" && exec ");
        quote(path.as_os_str().as_bytes(), &mut text);
        text.push(b'\n');
        let within = path.with_extension("within");
        write_program(&within, &text)?;
        Ok(within)
    }

    /// The hook of this level for an act.
    fn hook(&self, act: &Act<'_>) -> Option<Hook> {
        match (act, self.level) {
            (Act::SetUp, Level::Workspace) => Some(Hook::SetupWorkspace),
            (Act::CleanUp, Level::Workspace) => Some(Hook::CleanupWorkspace),
            (Act::SetUp, Level::Job) => Some(Hook::SetupJob),
            (Act::CleanUp, Level::Job) => Some(Hook::CleanupJob),
            (Act::Save { .. }, Level::Job) => Some(Hook::SaveArtifact),
            (Act::Restore { .. }, Level::Job) => Some(Hook::RestoreArtifact),
            _ => None,
        }
    }
}

#[async_trait]
impl Sandbox for HookedSandbox {
    fn directory(&self) -> &Path {
        &self.left.directory
    }

    async fn make_directory(&mut self) -> Result<(), ExecutorError> {
        Ok(())
    }

    async fn put_tree(&mut self, tree: Arc<dyn TreeAtHand>, to: PutTo<'_>) -> Result<(), ExecutorError> {
        let target = match to {
            PutTo::JobDirectory => match self.level {
                Level::Workspace => self.scratch.directory().join(REPOSITORY),
                Level::Job => self.left.directory.clone(),
            },
            PutTo::Artifact { name, .. } => {
                let target = self.artifacts().join(name);
                here::make_below(self.scratch.directory(), &target).await?;
                target
            }
        };
        self.writing.put(tree, target).await.map(drop)
    }

    async fn put_files(&mut self, files: Vec<FileToPut>) -> Result<(), ExecutorError> {
        here::put_files(&self.left.directory, files).await
    }

    async fn take_tree(&mut self, from: TakeFrom<'_>, offer: Offer) -> Result<Option<MadeTree>, ExecutorError> {
        let TakeFrom::Artifact { name, .. } = from;
        here::take(self.artifacts().join(name), false, None, offer).await
    }

    async fn note(&mut self) -> Result<(), ExecutorError> {
        self.looks.note(&self.left.directory).await
    }

    async fn changes(&mut self) -> Result<Changes, ExecutorError> {
        self.looks.changes(&self.left.directory).await
    }

    async fn begin_modified(&mut self) -> Result<(), ExecutorError> {
        self.looks.begin(&self.left.directory, false).await
    }

    async fn take_modified(&mut self, wanted: &ModifiedFiles, into: fs::File) -> Result<Packed, ExecutorError> {
        self.looks.take(&self.left.directory, wanted, into).await
    }

    fn handover_path(&mut self, handover: Handover) -> PathBuf {
        self.scratch.handover_path(handover)
    }

    async fn take_handover(&mut self, handover: Handover, limit: u64) -> Result<Option<Bytes>, ExecutorError> {
        self.scratch.take_handover(handover, limit).await
    }

    async fn act(&mut self, act: Act<'_>, env: &[Bytes]) -> Result<Option<Box<dyn Execution + '_>>, ExecutorError> {
        let Some(hook) = self.hook(&act) else { return Ok(None) };
        match act {
            Act::SetUp => self.begun = true,
            // Nothing was begun, or it was ended already.
            Act::CleanUp if !std::mem::take(&mut self.begun) => return Ok(None),
            Act::CleanUp => {}
            Act::Save { name, path } | Act::Restore { name, path } => {
                if self.options.script(hook).is_none() {
                    return Err(ExecutorError::NoHook { hook: hook.as_str() });
                }
                let directory = self.artifacts().join(name);
                let failed = |source| ExecutorError::Directory { path: directory.clone(), source };
                if hook == Hook::SaveArtifact && directory.exists() {
                    fs::remove_dir_all(&directory).map_err(failed)?;
                }
                fs::create_dir_all(&directory).map_err(failed)?;
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                let also = [("EXECUTR_ARTIFACT", Path::new(name)), ("EXECUTR_ARTIFACT_PATH", path)];
                return self.run(hook, env, &also).await;
            }
        }
        self.run(hook, env, &[]).await
    }

    fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    async fn execute(&mut self, step: StepPlan) -> Result<Box<dyn Execution + '_>, ExecutorError> {
        self.begun = true;
        let env = step.env.clone();
        let path = self
            .write_step(step)
            .map_err(|source| ExecutorError::Directory { path: self.scratch.directory().to_owned(), source })?;
        match self.run(Hook::Execute, &env, &[("EXECUTR_STEP", &path)]).await? {
            Some(execution) => Ok(execution),
            None => Err(ExecutorError::NoHook { hook: Hook::Execute.as_str() }),
        }
    }

    async fn cleanup(&mut self) -> Result<(), ExecutorError> {
        self.writing.over().await;
        self.scratch.cleanup().await
    }
}

/// A script that becomes a program with its arguments.
fn write_words(words: &[Bytes], text: &mut Vec<u8>) {
    text.extend_from_slice(b"#!/bin/sh\nexec");
    for word in words {
        text.push(b' ');
        quote(word, text);
    }
    text.push(b'\n');
}

/// A word as a shell takes it.
fn quote(word: &[u8], text: &mut Vec<u8>) {
    text.push(b'\'');
    for &byte in word {
        if byte == b'\'' {
            text.extend_from_slice(b"'\\''");
        } else {
            text.push(byte);
        }
    }
    text.push(b'\'');
}

fn write_program(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?;
    file.write_all(text)?;
    file.set_permissions(Permissions::from_mode(0o755))
}

/// A hook that runs.
struct HookExecution<'sandbox> {
    execution: Box<dyn Execution + 'sandbox>,
    hook: Hook,
    state: PathBuf,
    env: Vec<Bytes>,
    left: &'sandbox mut Left,
    failure: &'sandbox mut Option<String>,
}

#[async_trait]
impl Execution for HookExecution<'_> {
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError> {
        let event = self.execution.next().await?;
        match &event {
            Some(Event::Ended(_)) => self.ended(),
            Some(Event::StartFailed(_)) => *self.failure = Some(format!("hook `{}`", self.hook.as_str())),
            _ => {}
        }
        Ok(event)
    }

    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError> {
        self.execution.end(grace).await
    }
}

impl HookExecution<'_> {
    fn ended(&mut self) {
        let hook = self.hook.as_str();
        // Not there when it was killed, or has set its own trap for its exit.
        let Some(said) = fs::read(&self.state).ok().and_then(|text| Said::parse(&text)) else {
            *self.failure = Some(format!("hook `{hook}`"));
            return;
        };
        if said.code != 0 {
            let line = if said.line > 0 { format!(", line {}", said.line) } else { String::new() };
            *self.failure = Some(format!("hook `{hook}`{line}"));
        }
        // One that failed, too: cleaning up after it may need what it had by then.
        self.left.note(said, &self.env);
    }
}
