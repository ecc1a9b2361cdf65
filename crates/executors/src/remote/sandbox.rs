//! One attempt's directory where an agent is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use executr_agent_protocol::driver::{
    Agent, AgentError, File as TaskFile, FileContent, PutTree, StartTask, TakeTree, TreeError,
};
use executr_spec::Digest;
use executr_spec::glob::is_chosen;
use executr_spec::workflow::ModifiedFiles;
use executr_tree::{
    BlobDir, BlobSource, Change, Changes, Existing, MadeTree, Manifest, News, OfferedBlob, Packed, materialise,
};

use super::execution::RemoteExecution;
use super::sending::{Held, InMemory, OnDisk};
use crate::contract::{
    Execution, ExecutorError, FileToPut, Handover, Limits, Offer, Program, PutTo, Sandbox, StepPlan, TakeFrom,
    TreeAtHand,
};

/// The most bytes of a tree that is taken out of a job.
const MOST: u64 = 1 << 42;

/// How much of the job directory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    /// It is still to be made, with the first step.
    Wanted,
    /// It is there, or may be.
    Made,
}

/// A sandbox behind an agent. Dropped, it is removed in the background.
pub(super) struct RemoteSandbox {
    /// `None` after cleanup.
    agent: Option<Agent>,
    /// What goes with the attempt; `None` where steps start in a directory that stays.
    place: Option<PathBuf>,
    /// Where steps start.
    start: PathBuf,
    blobs: BlobDir,
    limits: Limits,
    directory: Directory,
    steps: u32,
    /// Programs of this machine that are there.
    brought: BTreeSet<PathBuf>,
    /// Where it goes at the end, here.
    kept: Option<PathBuf>,
    /// What changed since the steps began, as far as it was looked at; where somebody wants it.
    modified: Option<BTreeMap<PathBuf, Change>>,
    /// Files that are put there anew for each step.
    put: BTreeMap<PathBuf, Bytes>,
}

impl RemoteSandbox {
    pub(super) fn new(agent: Agent, place: Option<PathBuf>, start: PathBuf, blobs: BlobDir, limits: Limits) -> Self {
        let directory = if place.is_some() { Directory::Wanted } else { Directory::Made };
        Self {
            agent: Some(agent),
            place,
            start,
            blobs,
            limits,
            directory,
            steps: 0,
            brought: BTreeSet::new(),
            kept: None,
            modified: None,
            put: BTreeMap::new(),
        }
    }

    fn agent(&self) -> Result<Agent, ExecutorError> {
        let gone = || AgentError::Refused("the sandbox was cleaned up".to_owned());
        Ok(self.agent.clone().ok_or_else(gone)?)
    }

    /// The path there of something that lies beside the job directory.
    fn beside(&self, name: &str) -> PathBuf {
        self.place.as_deref().or_else(|| self.start.parent()).unwrap_or(Path::new("/")).join(name)
    }

    async fn put(
        &self,
        directory: &Path,
        below: &Path,
        manifest: Manifest,
        blobs: impl BlobSource + 'static,
    ) -> Result<(), TreeError> {
        let to = PutTree { directory: word(directory), below: word(below), replace: true, ..PutTree::default() };
        let agent = self.agent.clone().ok_or(TreeError::Broken)?;
        agent.put_tree(to, Arc::new(manifest), Arc::new(blobs)).await
    }

    /// Has a program of this machine there; where it is there.
    async fn bring(&mut self, program: &Path) -> Result<PathBuf, ExecutorError> {
        let name = PathBuf::from(program.file_name().unwrap_or_default());
        let programs = self.beside("programs");
        let there = programs.join(&name);
        if !self.brought.contains(&there) {
            let (path, named) = (program.to_owned(), name);
            let read = tokio::task::spawn_blocking(move || OnDisk::program(&path, named)).await;
            let read = read.map_err(|_| ExecutorError::Broken)?;
            let (manifest, source) =
                read.map_err(|source| ExecutorError::Directory { path: program.to_owned(), source })?;
            self.put(&programs, Path::new(""), manifest, source).await?;
            self.brought.insert(there.clone());
        }
        Ok(there)
    }

    /// Remembers what a look told, for the end.
    fn remember(&mut self, changes: &Changes) {
        let Some(known) = &mut self.modified else { return };
        for change in changes.all() {
            let before = known.get(&change.path).map(|before| before.news);
            let news = match (before, change.news) {
                (Some(News::Added), News::Deleted) => {
                    known.remove(&change.path);
                    continue;
                }
                (Some(News::Added), _) => News::Added,
                (Some(News::Deleted), News::Added) => News::Modified,
                (_, news) => news,
            };
            known.insert(change.path.clone(), Change { news, ..change.clone() });
        }
    }

    async fn look(&mut self) -> Result<Changes, ExecutorError> {
        let changes = self.agent()?.changes(self.start.clone()).await?;
        self.remember(&changes);
        Ok(changes)
    }

    /// Whether a file there is still what was put there.
    async fn is_as_put(&self, path: &Path) -> bool {
        let (Some(content), Some(agent)) = (self.put.get(path), &self.agent) else { return false };
        let read = agent.read_file(self.start.join(path), content.len() as u64).await;
        matches!(read, Ok(Ok(FileContent::Bytes(found))) if found == *content)
    }

    /// Brings the job directory here.
    async fn keep(&self, target: &Path) -> Result<(), ExecutorError> {
        let from = TakeTree { directory: self.start.clone(), path: PathBuf::new(), named: false, most: MOST };
        let Some(gathered) = self.agent()?.take_tree(from, self.blobs.clone(), Arc::new(|_| ())).await? else {
            return Ok(());
        };
        let (blobs, target) = (self.blobs.clone(), target.to_owned());
        let putting = tokio::task::spawn_blocking(move || {
            materialise(&gathered.tree.manifest, &blobs, &target, Existing::Refuse).map(drop)
        });
        Ok(putting.await.map_err(|_| ExecutorError::Broken)??)
    }
}

fn word(path: &Path) -> Bytes {
    Bytes::copy_from_slice(path.as_os_str().as_bytes())
}

/// What a handover's file is called.
fn name(handover: Handover) -> &'static str {
    match handover {
        Handover::Variables => "env",
        Handover::Outputs => "output",
    }
}

#[async_trait]
impl Sandbox for RemoteSandbox {
    fn directory(&self) -> &Path {
        &self.start
    }

    /// None of this machine's.
    fn variables(&self) -> Option<&[Bytes]> {
        Some(&[])
    }

    async fn make_directory(&mut self) -> Result<(), ExecutorError> {
        if self.directory == Directory::Wanted {
            self.agent()?.make_directory(self.start.clone(), 0o700, "").await?.map_err(ExecutorError::There)?;
            self.directory = Directory::Made;
        }
        Ok(())
    }

    fn keep_directory(&mut self, target: &Path) {
        self.kept = Some(target.to_owned());
    }

    async fn put_tree(&mut self, tree: Arc<dyn TreeAtHand>, to: PutTo<'_>) -> Result<(), ExecutorError> {
        self.make_directory().await?;
        let below = match to {
            PutTo::JobDirectory => Path::new(""),
            PutTo::Artifact { path, .. } => path,
        };
        let manifest = tree.manifest().clone();
        Ok(self.put(&self.start, below, manifest, Held(tree)).await?)
    }

    async fn put_files(&mut self, files: Vec<FileToPut>) -> Result<(), ExecutorError> {
        self.make_directory().await?;
        for FileToPut { path, content, mode } in files {
            let failed = |source| ExecutorError::File { path: path.clone(), source };
            let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
            let (manifest, source) = InMemory::file(name.into(), content.clone(), mode).map_err(failed)?;
            match self.put(&self.start, above, manifest, source).await {
                Ok(()) => drop(self.put.insert(path, content)),
                Err(TreeError::There(failure)) => return Err(failed(std::io::Error::other(failure.message))),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn take_tree(&mut self, from: TakeFrom<'_>, offer: Offer) -> Result<Option<MadeTree>, ExecutorError> {
        let TakeFrom::Artifact { path, .. } = from;
        let named = !path.as_os_str().is_empty();
        let from = TakeTree { directory: self.start.clone(), path: path.to_owned(), named, most: MOST };
        let source: Arc<dyn BlobSource> = Arc::new(self.blobs.clone());
        let tell = move |digest: Digest| drop(offer.send(OfferedBlob { digest, source: Arc::clone(&source) }));
        let gathered = self.agent()?.take_tree(from, self.blobs.clone(), Arc::new(tell)).await?;
        Ok(gathered.map(|gathered| gathered.tree))
    }

    async fn note(&mut self) -> Result<(), ExecutorError> {
        self.make_directory().await?;
        if self.modified.is_some() {
            return self.look().await.map(drop);
        }
        Ok(self.agent()?.note_tree(self.start.clone()).await?)
    }

    async fn changes(&mut self) -> Result<Changes, ExecutorError> {
        self.look().await
    }

    async fn begin_modified(&mut self) -> Result<(), ExecutorError> {
        self.make_directory().await?;
        self.agent()?.note_tree(self.start.clone()).await?;
        self.modified = Some(BTreeMap::new());
        Ok(())
    }

    async fn take_modified(&mut self, wanted: &ModifiedFiles, into: File) -> Result<Packed, ExecutorError> {
        self.look().await?;
        let mut changes = Vec::new();
        for (path, change) in self.modified.take().unwrap_or_default() {
            let is_wanted = is_chosen(&wanted.include, &wanted.exclude, path.as_os_str().as_bytes());
            if is_wanted && !self.is_as_put(&path).await {
                changes.push(change);
            }
        }
        let (_, packed) = self.agent()?.archive(self.start.clone(), &changes, wanted.archive, into).await?;
        Ok(Packed { files: packed.files, deleted: packed.deleted })
    }

    fn handover_path(&mut self, handover: Handover) -> PathBuf {
        self.beside(name(handover))
    }

    async fn take_handover(&mut self, handover: Handover, limit: u64) -> Result<Option<Bytes>, ExecutorError> {
        let path = self.beside(name(handover));
        let taken = self.agent()?.take_file(path.clone(), limit).await?;
        match taken {
            Ok(FileContent::Bytes(content)) => Ok(Some(content)),
            Ok(FileContent::Missing) => Ok(None),
            Err(failure) => Err(ExecutorError::Handover { path, source: std::io::Error::other(failure.message) }),
        }
    }

    async fn execute(&mut self, step: StepPlan) -> Result<Box<dyn Execution + '_>, ExecutorError> {
        self.steps += 1;
        let mut files = Vec::new();
        let argv = match step.program {
            Program::Argv(argv) => argv,
            Program::Brought { program, args } => {
                let there = self.bring(&program).await?;
                [Bytes::from(there.into_os_string().into_vec())].into_iter().chain(args).collect()
            }
            Program::Script(content) => {
                let path = word(&self.beside(&format!("run-{}", self.steps)));
                let has_interpreter = content.starts_with(b"#!");
                files.push(TaskFile { path: path.clone(), content, mode: 0o700 });
                let [sh, to_first_failure] = [Bytes::from_static(b"/bin/sh"), Bytes::from_static(b"-e")];
                if has_interpreter { vec![path] } else { vec![sh, to_first_failure, path] }
            }
        };
        let start = match &step.workdir {
            None => self.start.clone(),
            Some(workdir) => {
                self.make_directory().await?;
                self.start.join(workdir)
            }
        };
        let creates = self.directory == Directory::Wanted;
        let request = StartTask {
            argv,
            env: step.env,
            directory: word(&start),
            create_directory: creates,
            files,
            limits: Some(self.limits),
            ..StartTask::default()
        };
        let task = self.agent()?.start(request).await?;
        self.directory = Directory::Made;
        Ok(Box::new(RemoteExecution { task, creates, directory: &mut self.directory }))
    }

    async fn cleanup(&mut self) -> Result<(), ExecutorError> {
        if let (Some(target), Some(_), Directory::Made) = (self.kept.take(), &self.agent, self.directory)
            && let Err(error) = self.keep(&target).await
        {
            tracing::warn!(target = %target.display(), %error, "a job directory can't be kept");
        }
        let (Some(agent), Some(place)) = (self.agent.take(), self.place.take()) else { return Ok(()) };
        agent.settle().await;
        agent.remove_directory(place).await?.map_err(ExecutorError::Left)
    }
}

impl Drop for RemoteSandbox {
    fn drop(&mut self) {
        let (Some(agent), Some(place)) = (self.agent.take(), self.place.take()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            agent.settle().await;
            if let Ok(Err(failure)) = agent.remove_directory(&place).await {
                tracing::warn!(directory = %place.display(), %failure, "a job directory stays behind");
            }
        });
    }
}
