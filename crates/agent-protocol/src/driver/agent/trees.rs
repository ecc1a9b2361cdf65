//! Whole trees of files where the agent is.
//!
//! Bytes of files go between blobs here and directories there. A call that is cut has put or taken nothing that counts: it
//! ends with an error, and may be repeated.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use executr_spec::Digest;
use executr_spec::workflow::ArchiveKind;
use executr_tree::stream::{
    ChunkReader, ChunkWriter, Gathered, StreamError, Wanted, gather, send_contents, send_manifest,
};
use executr_tree::{BlobDir, BlobSource, Change, Changes, Manifest, News};
use futures_core::Stream;
use tokio::sync::mpsc;

use super::connection::Wired;
use super::files::bytes_of;
use super::{Agent, AgentError};
use crate::MAX_MESSAGE;
use crate::driver::Failure;
use crate::v1::archive_request::Message as ToPack;
use crate::v1::archive_response::Message as Archived;
use crate::v1::put_tree_request::Message as Put;
use crate::v1::take_tree_response::Message as Taken;
use crate::v1::trees_client::TreesClient;
use crate::v1::{
    Archive, ArchiveRequest, ChangesRequest, NoteTreeRequest, PutTreeRequest, TakeTreeRequest, WatchRequest,
    WatchResponse,
};

pub use crate::v1::PutTree;

/// Pieces that are read ahead of what is sent, or received ahead of what is written: a mebibyte.
pub(super) const AHEAD: usize = 4;

/// Changes in one message.
const TOGETHER: usize = 4096;

/// Why a tree isn't where it should be.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The agent is lost, or the way to it: it may be repeated.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// It can't be done where the agent is.
    #[error("{}", .0.message)]
    There(Failure),
    /// It can't be done here.
    #[error(transparent)]
    Here(#[from] StreamError),
    /// An archive can't be written here.
    #[error("the archive can't be written: {0}; check that there is space left")]
    Write(#[source] io::Error),
    /// A thread of this program broke off.
    #[error("a thread of the driver broke off; this is a fault of executr")]
    Broken,
}

/// What is to be taken from where an agent is.
#[derive(Clone, Debug, Default)]
pub struct TakeTree {
    /// A directory, absolute.
    pub directory: PathBuf,
    /// What is taken, below it: no link on the way is followed. Itself when empty.
    pub path: PathBuf,
    /// It keeps its name, as `cp -r PATH TREE/` would put it.
    pub named: bool,
    /// The most bytes it may have.
    pub most: u64,
}

impl Agent {
    /// Puts a tree, or a part of one, there.
    ///
    /// # Errors
    /// [`TreeError`]. A part of it may be there then; it may be repeated, replacing what is there.
    pub async fn put_tree(
        &self,
        to: PutTree,
        manifest: Arc<Manifest>,
        blobs: Arc<dyn BlobSource>,
    ) -> Result<(), TreeError> {
        let mut client = trees(self.wired().await?);
        let (give, requests) = mpsc::channel(AHEAD);
        let first = PutTreeRequest { message: Some(Put::Put(to)) };
        give.send(first).await.map_err(|_| TreeError::Broken)?;
        let sending = tokio::task::spawn_blocking(move || {
            let mut to = ChunkWriter::new(|piece: Vec<u8>| {
                let piece = PutTreeRequest { message: Some(Put::Piece(piece.into())) };
                give.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
            });
            send_manifest(&manifest, &mut to)?;
            send_contents(&manifest, &Wanted::All, &*blobs, &mut to)?;
            to.finish().map_err(StreamError::Cut)
        });
        let answer = client.put_tree(Requests(requests)).await;
        match sending.await.map_err(|_| TreeError::Broken)? {
            // What went wrong here is why the other side got too little.
            Err(error) if !matches!(error, StreamError::Cut(_)) => return Err(error.into()),
            _ => {}
        }
        let failure = answer.map_err(|status| AgentError::of(&status))?.into_inner().failure;
        failure.map_or(Ok(()), |failure| Err(TreeError::There(failure.into())))
    }

    /// Takes a tree from there into a directory of blobs; `None` when nothing is there. `tell` is told of each blob as soon as
    /// it has its name, by another thread.
    ///
    /// # Errors
    /// [`TreeError`]. Blobs that were told of stay.
    pub async fn take_tree(
        &self,
        from: TakeTree,
        blobs: BlobDir,
        tell: Arc<dyn Fn(Digest) + Send + Sync>,
    ) -> Result<Option<Gathered>, TreeError> {
        let request =
            TakeTreeRequest { directory: bytes_of(from.directory), path: bytes_of(from.path), named: from.named };
        let mut client = trees(self.wired().await?);
        let answer = client.take_tree(request).await.map_err(|status| AgentError::of(&status))?;
        let mut answers = answer.into_inner();
        let mut first = Some(answers.message().await.map_err(|status| AgentError::of(&status))?);
        if let Some(Some(answer)) = &first
            && matches!(answer.message, Some(Taken::Missing(_)))
        {
            return Ok(None);
        }
        let (give, mut pieces) = mpsc::channel::<Bytes>(AHEAD);
        let gathering = tokio::task::spawn_blocking(move || {
            let mut from_there = ChunkReader::new(|| Ok(pieces.blocking_recv()));
            let gathered = gather(&mut from_there, &blobs, from.most, &*tell)?;
            from_there.finish().map_err(StreamError::Cut)?;
            Ok::<_, StreamError>(gathered)
        });
        let fed = async {
            loop {
                let next = match first.take() {
                    Some(first) => first,
                    None => answers.message().await.map_err(|status| AgentError::of(&status))?,
                };
                match next.map(|next| next.message) {
                    // The thread failed, and says why.
                    Some(Some(Taken::Piece(piece))) if give.send(piece.clone()).await.is_err() => return Ok(()),
                    Some(Some(Taken::Piece(_))) => {}
                    Some(Some(Taken::Failure(failure))) => return Err(TreeError::There(failure.into())),
                    Some(_) => return Err(AgentError::Protocol("a tree without pieces".to_owned()).into()),
                    None => return Ok(()),
                }
            }
        };
        let fed: Result<(), TreeError> = fed.await;
        drop(give);
        let gathered = gathering.await.map_err(|_| TreeError::Broken)?;
        fed?;
        match gathered {
            Ok(gathered) => Ok(Some(gathered)),
            Err(StreamError::Cut(error)) => Err(AgentError::Connection(error.to_string()).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes what a directory there looks like, for [`Agent::changes`].
    ///
    /// # Errors
    /// [`TreeError`].
    pub async fn note_tree(&self, directory: impl Into<PathBuf>) -> Result<(), TreeError> {
        let directory = bytes_of(directory);
        let asked = self.ask(|wired| {
            let request = NoteTreeRequest { directory: directory.clone() };
            async move { Ok(trees(wired).note_tree(request).await?.into_inner().failure) }
        });
        asked.await?.map_or(Ok(()), |failure| Err(TreeError::There(failure.into())))
    }

    /// What is different in a directory there since it was noted last, and notes that.
    ///
    /// # Errors
    /// [`TreeError`]. After a cut what was different may have been noted, and not be told again.
    pub async fn changes(&self, directory: impl Into<PathBuf>) -> Result<Changes, TreeError> {
        let request = ChangesRequest { directory: bytes_of(directory) };
        let mut client = trees(self.wired().await?);
        let answer = client.changes(request).await.map_err(|status| AgentError::of(&status))?;
        let mut answers = answer.into_inner();
        let mut changes = Vec::new();
        while let Some(next) = answers.message().await.map_err(|status| AgentError::of(&status))? {
            if let Some(failure) = next.failure {
                return Err(TreeError::There(failure.into()));
            }
            for change in next.changes {
                changes.push(understood(change)?);
            }
        }
        Ok(Changes::new(changes))
    }
}

/// What is touched in a directory where an agent is. Dropped, it is watched no more.
#[derive(Debug)]
pub struct TreeWatch(tonic::Streaming<WatchResponse>);

/// What a watcher has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These were touched: added, changed or removed. Below the directory.
    Paths(Vec<PathBuf>),
    /// More was touched than can be told.
    Missed,
}

impl TreeWatch {
    /// What is touched next. The future may be dropped and asked for again without loss.
    ///
    /// # Errors
    /// [`TreeError`]; the watch is over then.
    pub async fn next(&mut self) -> Result<Touched, TreeError> {
        let over = || AgentError::Connection("the agent watches no more".to_owned());
        let told = self.0.message().await.map_err(|status| AgentError::of(&status))?.ok_or_else(over)?;
        if let Some(failure) = told.failure {
            return Err(TreeError::There(failure.into()));
        }
        if told.missed {
            return Ok(Touched::Missed);
        }
        Ok(Touched::Paths(told.paths.into_iter().map(|path| OsString::from_vec(path.into()).into()).collect()))
    }
}

impl Agent {
    /// Watches a directory there, with all below it: what is touched from now on is told while it is. What has changed in
    /// the end [`Agent::changes`] tells; this is for people who look on.
    ///
    /// # Errors
    /// [`TreeError`].
    pub async fn watch(&self, directory: impl Into<PathBuf>) -> Result<TreeWatch, TreeError> {
        let mut client = trees(self.wired().await?);
        let request = WatchRequest { directory: bytes_of(directory) };
        let answer = client.watch(request).await.map_err(|status| AgentError::of(&status))?;
        let mut watch = TreeWatch(answer.into_inner());
        // The first says that it has begun.
        watch.next().await?;
        Ok(watch)
    }

    /// Packs what changed in a directory there, and writes the archive to `to`, on another thread; returns it with what it
    /// holds.
    ///
    /// # Errors
    /// [`TreeError`]. What was written then is no archive.
    pub async fn archive<W: io::Write + Send + 'static>(
        &self,
        directory: impl Into<PathBuf>,
        changes: &[Change],
        kind: ArchiveKind,
        mut to: W,
    ) -> Result<(W, Packed), TreeError> {
        let mut client = trees(self.wired().await?);
        let kind = match kind {
            ArchiveKind::TarZst => crate::v1::ArchiveKind::TarZst,
            ArchiveKind::TarS2 => crate::v1::ArchiveKind::TarS2,
        };
        let archive = Archive { directory: bytes_of(directory), kind: kind.into() };
        let mut requests = vec![ArchiveRequest { message: Some(ToPack::Archive(archive)) }];
        for together in changes.chunks(TOGETHER) {
            let changes = together.iter().map(told).collect();
            requests.push(ArchiveRequest { message: Some(ToPack::Changed(crate::v1::Changed { changes })) });
        }
        let (give, requested) = mpsc::channel(requests.len());
        for request in requests {
            give.send(request).await.map_err(|_| TreeError::Broken)?;
        }
        drop(give);
        let answer = client.archive(Requests(requested)).await.map_err(|status| AgentError::of(&status))?;
        let mut answers = answer.into_inner();
        let (give, mut pieces) = mpsc::channel::<Bytes>(AHEAD);
        let writing = tokio::task::spawn_blocking(move || {
            let mut from = ChunkReader::new(|| Ok(pieces.blocking_recv()));
            io::copy(&mut from, &mut to)?;
            from.finish()?;
            to.flush()?;
            Ok::<_, io::Error>(to)
        });
        let packed = loop {
            let next = answers.message().await.map_err(|status| AgentError::of(&status))?;
            match next.and_then(|next| next.message) {
                // The thread failed, and says why.
                Some(Archived::Piece(piece)) if give.send(piece.clone()).await.is_err() => break None,
                Some(Archived::Piece(_)) => {}
                Some(Archived::Packed(packed)) => {
                    break Some(Packed { files: packed.files, deleted: packed.deleted });
                }
                Some(Archived::Failure(failure)) => return Err(TreeError::There(failure.into())),
                None => return Err(AgentError::Connection("the archive was cut off".to_owned()).into()),
            }
        };
        drop(give);
        let written = writing.await.map_err(|_| TreeError::Broken)?;
        let to = written.map_err(TreeError::Write)?;
        packed.map(|packed| (to, packed)).ok_or(TreeError::Broken)
    }
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files and links.
    pub files: u64,
    /// Paths that were deleted.
    pub deleted: u64,
}

fn told(change: &Change) -> crate::v1::Change {
    let news = match change.news {
        News::Added => crate::v1::News::Added,
        News::Modified => crate::v1::News::Modified,
        News::Mode => crate::v1::News::Mode,
        News::Deleted => crate::v1::News::Deleted,
    };
    crate::v1::Change { path: bytes_of(&change.path), news: news.into(), directory: change.is_directory }
}

fn understood(change: crate::v1::Change) -> Result<Change, AgentError> {
    let news = match change.news() {
        crate::v1::News::Added => News::Added,
        crate::v1::News::Modified => News::Modified,
        crate::v1::News::Mode => News::Mode,
        crate::v1::News::Deleted => News::Deleted,
        crate::v1::News::Unspecified => return Err(AgentError::Protocol("a change without news".to_owned())),
    };
    let path = OsString::from_vec(change.path.into()).into();
    Ok(Change { path, news, is_directory: change.directory })
}

pub(super) fn trees(wired: Wired) -> TreesClient<Wired> {
    TreesClient::with_origin(wired, Wired::origin())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// What a thread sends.
pub(super) struct Requests<T>(pub(super) mpsc::Receiver<T>);

impl<T> Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
