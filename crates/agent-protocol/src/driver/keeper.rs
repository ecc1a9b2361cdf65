//! One keeper: started or called, spoken to, replaced, let go.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::wire::{ReadError, Wire};
use super::{Failure, KeeperError, Offers, Task};
use crate::PROTOCOL;
use crate::keeper::v1::{Hello, Ping, RemoveDirectory, Start, from_keeper, to_keeper};
use crate::v1::StartTask;

/// Numbers keepers within this process, so that no two of them ever share a control group.
static NEXT_SLOT: AtomicU32 = AtomicU32::new(0);

/// How to start keepers.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// The program that is a keeper when started with `args`: this very `executr`.
    pub program: PathBuf,
    /// Its arguments, such as `["keeper"]`.
    pub args: Vec<OsString>,
    /// Whether to use control groups.
    pub cgroups: Cgroups,
}

/// Whether a keeper uses control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cgroups {
    /// Where they are writable.
    #[default]
    WhereWritable,
    /// Never. Limits are then not offered.
    Never,
}

/// Where keepers come from.
#[derive(Debug, Clone)]
pub enum KeeperSource {
    /// Each is a process of this machine, started for it.
    Process(KeeperOptions),
    /// An agent that listens on this socket starts one for whoever connects.
    Socket(PathBuf),
    /// It is at the other end of this connected socket: one, once. There is no other when it is lost.
    Stream(Arc<OwnedFd>),
}

/// A keeper. Dropped, it ends everything it runs and exits; [`Keeper::close`] also waits for that.
#[derive(Debug)]
pub struct Keeper {
    source: KeeperSource,
    cgroups: Cgroups,
    slot: u32,
    /// `None` when it is no child of ours.
    process: Option<tokio::process::Child>,
    pub(super) wire: Wire,
    pid: u32,
    offers: Offers,
    next_task: u64,
    /// The task that was started and not yet seen to end.
    pub(super) current: Option<u64>,
}

impl Keeper {
    /// Starts a keeper and waits until it is ready.
    ///
    /// # Errors
    /// When the program can't be started or isn't a keeper of this version.
    pub async fn spawn(options: KeeperOptions) -> Result<Self, KeeperError> {
        Self::of(KeeperSource::Process(options)).await
    }

    /// A keeper from `source`, ready.
    ///
    /// # Errors
    /// When there can be none, or it isn't one of this version.
    pub async fn of(source: KeeperSource) -> Result<Self, KeeperError> {
        let slot = NEXT_SLOT.fetch_add(1, Ordering::Relaxed);
        // Elsewhere the groups are the place's own, with the limits it was made with.
        let cgroups = match &source {
            KeeperSource::Process(options) => options.cgroups,
            KeeperSource::Socket(_) | KeeperSource::Stream(_) => Cgroups::Never,
        };
        Self::in_slot(source, cgroups, slot, 1).await
    }

    /// The keeper at the other end of `stream`: one that somebody else started, and waits for.
    ///
    /// # Errors
    /// When it isn't one of this version.
    pub async fn over(stream: OwnedFd, cgroups: Cgroups) -> Result<Self, KeeperError> {
        let slot = NEXT_SLOT.fetch_add(1, Ordering::Relaxed);
        Self::in_slot(KeeperSource::Stream(Arc::new(stream)), cgroups, slot, 1).await
    }

    async fn in_slot(source: KeeperSource, cgroups: Cgroups, slot: u32, next_task: u64) -> Result<Self, KeeperError> {
        let (mut wire, process) = match &source {
            KeeperSource::Process(options) => {
                let (wire, theirs) = Wire::pair()?;
                (wire, Some(start(options, theirs)?))
            }
            KeeperSource::Socket(path) => {
                let failed = |source| KeeperError::Call { socket: path.clone(), source };
                (Wire::connect(path).map_err(failed)?, None)
            }
            KeeperSource::Stream(stream) => (Wire::on(stream)?, None),
        };
        let hello = Hello {
            protocol: PROTOCOL,
            owner_pid: std::process::id(),
            slot,
            without_cgroups: cgroups == Cgroups::Never,
        };
        wire.queue(to_keeper::Message::Hello(hello)).map_err(KeeperError::TooLong)?;
        let mut keeper = Self {
            source,
            cgroups,
            slot,
            process,
            wire,
            pid: 0,
            offers: crate::v1::Offers::default().into(),
            next_task,
            current: None,
        };
        keeper.flush().await?;
        match keeper.next_message().await? {
            from_keeper::Message::Ready(ready) if ready.protocol == PROTOCOL => {
                keeper.pid = ready.pid;
                keeper.offers = ready.offers.unwrap_or_default().into();
                Ok(keeper)
            }
            from_keeper::Message::Ready(ready) => Err(KeeperError::Protocol(format!(
                "it speaks version {} of the protocol, not {PROTOCOL}",
                ready.protocol
            ))),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts another process in the place of this one, which is let go. Task numbers go on.
    ///
    /// # Errors
    /// As [`Keeper::spawn`]; the old one is then still in place, so this may be tried again.
    pub async fn respawn(&mut self) -> Result<(), KeeperError> {
        self.wire.hang_up();
        // The successor uses the same control group and empties it first: the predecessor must be done with it.
        // One that can't even exit is helped along.
        if let Some(process) = &mut self.process
            && tokio::time::timeout(CLOSE_PATIENCE, process.wait()).await.is_err()
        {
            process.kill().await?;
        }
        *self = Self::in_slot(self.source.clone(), self.cgroups, self.slot, self.next_task).await?;
        Ok(())
    }

    /// Process id of the keeper, where it runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Which limits it can enforce, found out by trying when it started.
    #[must_use]
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Starts a task. One left unfinished by a dropped [`Task`] is ended first.
    ///
    /// # Errors
    /// When the keeper is gone, or the request is larger than [`crate::frame::MAX_FRAME`]. That the program
    /// can't be started is an event.
    pub async fn start(&mut self, request: StartTask) -> Result<Task<'_>, KeeperError> {
        self.settle().await?;
        let task_id = self.next_task;
        let start = Start { task_id, task: Some(request) };
        self.wire.queue(to_keeper::Message::Start(start)).map_err(KeeperError::TooLong)?;
        self.next_task += 1;
        self.current = Some(task_id);
        self.flush().await?;
        Ok(Task::new(self, task_id))
    }

    /// Removes a directory with all it holds, without following symbolic links; one that doesn't exist is no
    /// error. The answer is about the directory; a task left unfinished is ended first.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn remove_directory(&mut self, path: impl Into<PathBuf>) -> Result<Result<(), Failure>, KeeperError> {
        use std::os::unix::ffi::OsStringExt;
        self.settle().await?;
        let path = Bytes::from(path.into().into_os_string().into_vec());
        self.wire.queue(to_keeper::Message::RemoveDirectory(RemoveDirectory { path })).map_err(KeeperError::TooLong)?;
        self.flush().await?;
        loop {
            match self.next_message().await? {
                from_keeper::Message::DirectoryRemoved(answer) => {
                    return Ok(answer.failure.map_or(Ok(()), |failure| Err(failure.into())));
                }
                from_keeper::Message::Pong(_) => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Asks whether the keeper answers.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn ping(&mut self) -> Result<(), KeeperError> {
        self.settle().await?;
        let nonce = self.next_task;
        self.wire.queue(to_keeper::Message::Ping(Ping { nonce })).map_err(KeeperError::TooLong)?;
        self.flush().await?;
        loop {
            match self.next_message().await? {
                from_keeper::Message::Pong(pong) if pong.nonce == nonce => return Ok(()),
                from_keeper::Message::Pong(_) | from_keeper::Message::DirectoryRemoved(_) => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Lets the keeper go and waits until it has ended everything it ran and exited; how, is known of a process of ours.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn close(mut self) -> Result<Option<ExitStatus>, KeeperError> {
        self.wire.hang_up();
        // It may still be telling us about a task: read until it closes, so that nothing holds it up.
        while let Ok(Some(_)) = self.wire.next().await {}
        match &mut self.process {
            Some(process) => Ok(Some(process.wait().await?)),
            None => Ok(None),
        }
    }

    /// Ends a task that a dropped [`Task`] left, and reads until its end.
    async fn settle(&mut self) -> Result<(), KeeperError> {
        self.flush().await?;
        let Some(left) = self.current else {
            return Ok(());
        };
        // Said again, because a Task that is forgotten rather than dropped hasn't said it.
        Task::new(self, left).finish().await
    }

    /// Ends the process at once, even one that was stopped.
    pub(super) fn kill(&mut self) -> Result<(), KeeperError> {
        match &mut self.process {
            Some(process) => Ok(process.start_kill()?),
            // Not ours to kill: its place is.
            None => Ok(()),
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), KeeperError> {
        match self.wire.flush().await {
            Ok(()) => Ok(()),
            Err(error) if is_gone(&error) => Err(self.died().await),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn next_message(&mut self) -> Result<from_keeper::Message, KeeperError> {
        match self.wire.next().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.died().await),
            Err(ReadError::Io(error)) => Err(error.into()),
            Err(error) => Err(KeeperError::Protocol(error.to_string())),
        }
    }

    async fn died(&mut self) -> KeeperError {
        match &mut self.process {
            None => KeeperError::Lost,
            Some(process) => match process.wait().await {
                Ok(status) => KeeperError::Died { status },
                Err(error) => error.into(),
            },
        }
    }
}

/// A keeper process at the other end of `theirs`.
///
/// The socket is its standard input: so nothing has to run between fork and exec, and the standard library takes
/// posix_spawn, whose cost doesn't grow with this process.
fn start(options: &KeeperOptions, theirs: OwnedFd) -> Result<tokio::process::Child, KeeperError> {
    tokio::process::Command::new(&options.program)
        .args(&options.args)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|source| KeeperError::Spawn { program: options.program.clone(), source })
}

/// How long a keeper that is to be replaced may take to end what it runs.
const CLOSE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset)
}

pub(super) fn unexpected(message: &from_keeper::Message) -> KeeperError {
    let kind = match message {
        from_keeper::Message::Ready(_) => "ready",
        from_keeper::Message::Started(_) => "started",
        from_keeper::Message::Output(_) => "output",
        from_keeper::Message::Ended(_) => "ended",
        from_keeper::Message::DirectoryRemoved(_) => "directory removed",
        from_keeper::Message::Pong(_) => "pong",
        from_keeper::Message::InputTaken(_) => "input taken",
    };
    KeeperError::Protocol(format!("\"{kind}\" was not expected now"))
}
