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
use crate::v1::put_tree_request::Message as Put;
use crate::v1::take_tree_response::Message as Taken;
use crate::v1::trees_client::TreesClient;
use crate::v1::{ChangesRequest, NoteTreeRequest, PutTreeRequest, TakeTreeRequest};

pub use crate::v1::PutTree;

/// Pieces that are read ahead of what is sent, or received ahead of what is written: a mebibyte.
const AHEAD: usize = 4;

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
        let asked = self.ask(async |wired| {
            let request = NoteTreeRequest { directory: directory.clone() };
            Ok(trees(wired).note_tree(request).await?.into_inner().failure)
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

fn trees(wired: Wired) -> TreesClient<Wired> {
    TreesClient::with_origin(wired, Wired::origin())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// What a thread sends.
struct Requests<T>(mpsc::Receiver<T>);

impl<T> Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
