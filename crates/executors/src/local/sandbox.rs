//! One attempt's directory and the keeper that works for it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_agent_protocol::driver::{File, Keeper, KeeperSource, StartTask, Task};
use executr_spec::workflow::ModifiedFiles;
use executr_tree::{Changes, MadeTree, Packed};

use super::console::LocalConsoles;
use super::work_directory::{JobPlace, SCRIPT};
use super::workspace::{Pool, Resting, RunAs, remove};
use crate::contract::{
    self, Event, Execution, ExecutorError, FileToPut, Handover, JobPlan, KeeperError, Limits, Offer, Place, Program,
    PutTo, Sandbox, StartPhase, StepPlan, TakeFrom, TreeAtHand,
};
use crate::here::{self, Looks, Writing};

/// How much of the job directory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directory {
    /// It is still to be made, with the first step.
    Wanted,
    /// It is there, or may be.
    Made,
    /// It is gone, or never was ours.
    Gone,
}

/// A sandbox on this machine. Dropped, it gives its keeper back.
pub(super) struct LocalSandbox {
    /// `None` after cleanup.
    keeper: Option<Keeper>,
    /// The keeper failed: nothing it ran goes on, and it needs a successor.
    lost: bool,
    /// Where there are more.
    source: KeeperSource,
    pool: Pool,
    place: JobPlace,
    /// Where steps start.
    start: PathBuf,
    limits: Limits,
    run_as: Arc<RunAs>,
    directory: Directory,
    /// Something was put into the directory that the steps' user needn't own.
    to_give: bool,
    /// Where it goes at the end instead of being removed.
    kept: Option<PathBuf>,
    steps: u32,
    script: Option<PathBuf>,
    /// What steps were told where to hand over, and may have left there.
    handovers: Vec<Handover>,
    looks: Looks,
    writing: Writing,
}

impl LocalSandbox {
    pub(super) fn new(
        keeper: Keeper,
        source: KeeperSource,
        pool: Pool,
        place: JobPlace,
        job: JobPlan,
        run_as: Arc<RunAs>,
    ) -> Self {
        // What is in a directory that was there before may be somebody else's.
        let to_give = job.place != Place::Sandbox && !run_as.user.is_empty();
        let (start, directory) = match job.place {
            Place::Sandbox => (place.directory.clone(), Directory::Wanted),
            Place::Directory(path) => (path, Directory::Gone),
        };
        Self {
            keeper: Some(keeper),
            lost: false,
            source,
            pool,
            place,
            start,
            limits: job.limits,
            run_as,
            directory,
            to_give,
            kept: None,
            steps: 0,
            script: None,
            handovers: Vec::new(),
            looks: Looks::default(),
            writing: Writing::default(),
        }
    }

    /// The path of something of this job that lies beside its directory, as a script does.
    fn beside(&self, name: impl std::fmt::Display) -> PathBuf {
        let mut path = OsString::from(&self.place.directory);
        path.push(format!("{SCRIPT}{name}"));
        path.into()
    }

    /// The script lies beside the job directory: a step that packs or lists its directory doesn't find it there.
    fn script_path(&self) -> PathBuf {
        self.beside(self.steps)
    }

    fn remove_script(&mut self) {
        if let Some(script) = self.script.take() {
            // Not there when the step couldn't be started.
            let _ = fs::remove_file(script);
        }
    }

    /// Removes all that lies beside the job directory.
    fn remove_beside(&mut self) {
        self.remove_script();
        for handover in std::mem::take(&mut self.handovers) {
            let _ = fs::remove_file(self.beside(name(handover)));
        }
    }

    fn give_back(&mut self) {
        let Some(keeper) = self.keeper.take() else { return };
        let left = (self.directory == Directory::Made).then(|| self.place.directory.clone());
        let resting = Resting { keeper, lost: self.lost, left };
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(resting);
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn directory(&self) -> &Path {
        &self.start
    }

    async fn make_directory(&mut self) -> Result<(), ExecutorError> {
        self.writing.over().await;
        if self.directory == Directory::Wanted {
            let failed = |source| ExecutorError::Directory { path: self.start.clone(), source };
            DirBuilder::new().mode(0o700).create(&self.start).map_err(failed)?;
            self.directory = Directory::Made;
        }
        self.to_give |= self.directory == Directory::Made;
        Ok(())
    }

    fn keep_directory(&mut self, target: &Path) {
        self.kept = Some(target.to_owned());
    }

    async fn put_tree(&mut self, tree: Arc<dyn TreeAtHand>, to: PutTo<'_>) -> Result<(), ExecutorError> {
        self.make_directory().await?;
        let target = match to {
            PutTo::JobDirectory => {
                return here::put_watched(&mut self.writing, &mut self.looks, tree, self.start.clone()).await;
            }
            PutTo::Artifact { path, .. } => {
                let target = self.start.join(path);
                here::make_below(&self.start, &target).await?;
                target
            }
        };
        self.writing.put(tree, target).await.map(drop)
    }

    async fn put_files(&mut self, files: Vec<FileToPut>) -> Result<(), ExecutorError> {
        self.make_directory().await?;
        self.looks.put(&files);
        here::put_files(&self.start, files).await
    }

    async fn take_tree(&mut self, from: TakeFrom<'_>, offer: Offer) -> Result<Option<MadeTree>, ExecutorError> {
        let TakeFrom::Artifact { path, .. } = from;
        // Steps may have put a link in any place, the job directory's own too. A directory of the user's own is where he
        // says.
        let above = if self.start == self.place.directory { self.start.parent() } else { None };
        let within = above.unwrap_or(&self.start).to_owned();
        here::take(self.start.join(path), !path.as_os_str().is_empty(), Some(within), offer).await
    }

    async fn note(&mut self) -> Result<(), ExecutorError> {
        self.make_directory().await?;
        self.looks.note(&self.start).await
    }

    async fn changes(&mut self) -> Result<Changes, ExecutorError> {
        self.looks.changes(&self.start).await
    }

    async fn begin_modified(&mut self) -> Result<(), ExecutorError> {
        self.make_directory().await?;
        self.looks.begin(&self.start, self.start == self.place.directory).await
    }

    async fn take_modified(&mut self, wanted: &ModifiedFiles, into: fs::File) -> Result<Packed, ExecutorError> {
        self.looks.take(&self.start, wanted, into).await
    }

    fn handover_path(&mut self, handover: Handover) -> PathBuf {
        if !self.handovers.contains(&handover) {
            self.handovers.push(handover);
        }
        self.beside(name(handover))
    }

    async fn take_handover(&mut self, handover: Handover, limit: u64) -> Result<Option<Bytes>, ExecutorError> {
        let path = self.beside(name(handover));
        let failed = |source| ExecutorError::Handover { path: path.clone(), source };
        // A step may have put anything there; nothing but a file of its own is read, and nothing is waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.handovers.retain(|left| *left != handover);
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
        }
        let mut content = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(failed)?;
        fs::remove_file(&path).map_err(failed)?;
        self.handovers.retain(|left| *left != handover);
        Ok(Some(content.into()))
    }

    async fn execute(&mut self, step: StepPlan) -> Result<Box<dyn Execution + '_>, ExecutorError> {
        self.writing.over().await;
        self.remove_script();
        self.steps += 1;
        let mut files = Vec::new();
        let argv = match step.program {
            Program::Argv(argv) => argv,
            Program::Brought { program, args } => contract::brought(program, args),
            Program::Script(content) => {
                let path = self.script_path();
                let word = Bytes::from(path.clone().into_os_string().into_vec());
                self.script = Some(path);
                let has_interpreter = content.starts_with(b"#!");
                files.push(File { path: word.clone(), content, mode: 0o700 });
                let [sh, to_first_failure] = [Bytes::from_static(b"/bin/sh"), Bytes::from_static(b"-e")];
                if has_interpreter { vec![word] } else { vec![sh, to_first_failure, word] }
            }
        };
        if !self.run_as.user.is_empty() {
            // They lie in a directory that only its owner can write to.
            for handover in &self.handovers {
                let path = self.beside(name(*handover));
                if fs::symlink_metadata(&path).is_err() {
                    let path = Bytes::from(path.into_os_string().into_vec());
                    files.push(File { path, content: Bytes::new(), mode: 0o644 });
                }
            }
        }
        let start = match &step.workdir {
            None => self.start.clone(),
            Some(workdir) => {
                self.make_directory().await?;
                self.start.join(workdir)
            }
        };
        // The agent makes and removes no other directory than the one the step starts in.
        let is_last_use = step.last && self.kept.is_none();
        let removes = is_last_use && step.workdir.is_none() && self.directory != Directory::Gone;
        let creates = self.directory == Directory::Wanted;
        let give = if std::mem::take(&mut self.to_give) { self.start.clone() } else { PathBuf::new() };
        let request = StartTask {
            user: self.run_as.user.clone(),
            without_privileges: self.run_as.without_privileges,
            give: Bytes::from(give.into_os_string().into_vec()),
            argv,
            env: step.env,
            directory: Bytes::from(start.into_os_string().into_vec()),
            create_directory: creates,
            remove_directory: removes,
            files,
            limits: Some(self.limits),
            ..StartTask::default()
        };
        if creates {
            self.directory = Directory::Made;
        }
        let Some(keeper) = self.keeper.as_mut() else {
            return Err(KeeperError::Protocol("a step after its sandbox was cleaned up".to_owned()).into());
        };
        let task = match keeper.start(request).await {
            Ok(task) => task,
            Err(error) => {
                self.lost = !matches!(error, KeeperError::TooLong(_));
                return Err(error.into());
            }
        };
        Ok(Box::new(LocalExecution { task, creates, removes, directory: &mut self.directory, lost: &mut self.lost }))
    }

    fn consoles(&self) -> Option<Arc<dyn contract::Consoles>> {
        LocalConsoles::of(&self.source, &self.start, self.limits, &self.run_as)
    }

    async fn cleanup(&mut self) -> Result<(), ExecutorError> {
        self.writing.over().await;
        self.remove_beside();
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        if self.lost {
            // At once: the successor ends what the lost one ran.
            keeper.respawn().await?;
            self.lost = false;
        }
        let mut removed = Ok(());
        if let (Directory::Made, Some(target)) = (self.directory, &self.kept) {
            match fs::rename(&self.place.directory, target) {
                Ok(()) => self.directory = Directory::Gone,
                // It was never made after all; or it is removed as any other.
                Err(error) => tracing::warn!(target = %target.display(), %error, "a job directory can't be kept"),
            }
        }
        if self.directory == Directory::Made {
            removed = remove(keeper, &self.place.directory).await;
            self.lost = matches!(removed, Err(ExecutorError::Agent(_)));
            if !self.lost {
                self.directory = Directory::Gone;
            }
        }
        self.give_back();
        removed
    }
}

impl Drop for LocalSandbox {
    fn drop(&mut self) {
        self.remove_beside();
        self.give_back();
    }
}

/// What a handover's file is called beside the job directory.
fn name(handover: Handover) -> &'static str {
    match handover {
        Handover::Variables => "env",
        Handover::Outputs => "output",
    }
}

struct LocalExecution<'sandbox> {
    task: Task<'sandbox>,
    creates: bool,
    removes: bool,
    directory: &'sandbox mut Directory,
    lost: &'sandbox mut bool,
}

#[async_trait]
impl Execution for LocalExecution<'_> {
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError> {
        let event = match self.task.next().await {
            Ok(event) => event,
            Err(error) => {
                *self.lost = true;
                return Err(error.into());
            }
        };
        match &event {
            Some(Event::Ended(ended)) => self.removed(ended.removal_failure.as_ref()),
            Some(Event::StartFailed(failed)) => {
                self.removed(failed.removal_failure.as_ref());
                // It is nowhere, or not ours but was there before; or it came and went, and may come again.
                let never_made = matches!(failed.phase, StartPhase::Request | StartPhase::Directory);
                if self.creates && (never_made || *self.directory == Directory::Gone) {
                    *self.directory = Directory::Wanted;
                }
            }
            _ => {}
        }
        Ok(event)
    }

    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError> {
        Ok(self.task.end(grace).await.inspect_err(|_| *self.lost = true)?)
    }
}

impl LocalExecution<'_> {
    fn removed(&mut self, failure: Option<&crate::contract::Failure>) {
        if !self.removes {
            return;
        }
        match failure {
            None => *self.directory = Directory::Gone,
            Some(failure) => tracing::warn!(%failure, "a job directory stays behind"),
        }
    }
}
