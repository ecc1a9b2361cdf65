//! Golden trees: kept where an agent is, to make others of, when bytes come from far away.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use executr_spec::Digest;
use executr_tree::golden::delta;
use executr_tree::stream::{ChunkWriter, StreamError, Wanted, send_contents, send_manifest};
use executr_tree::{BlobSource, Manifest};
use tokio::sync::mpsc;

use super::files::bytes_of;
use super::trees::{AHEAD, Requests, TreeError, trees};
use super::{Agent, AgentError};
use crate::v1::update_golden_request::Message as ToUpdate;
use crate::v1::update_golden_response::Message as Updated;
use crate::v1::{CopyGoldenRequest, PutTree, UpdateGolden, UpdateGoldenRequest};

/// Manifests that the caller knows by their [`outline_digest`](Manifest::outline_digest): of one that is there only what differs
/// has to be sent.
pub type KnownManifests<'a> = &'a (dyn Fn(Digest) -> Option<Arc<Manifest>> + Send + Sync);

/// All of a manifest follows.
const WHOLE: u8 = 0;
/// What makes it of the one that is held.
const DELTA: u8 = 1;
/// Nothing: it is the one that is held.
const SAME: u8 = 2;

impl Agent {
    /// Brings the golden tree that is kept in `directory` there up to date. How many bytes of pieces went over.
    ///
    /// # Errors
    /// [`TreeError`]. It may be repeated; when another agent uses the same directory, put the tree where it is to be instead.
    pub async fn update_golden(
        &self,
        directory: impl Into<PathBuf>,
        manifest: Arc<Manifest>,
        blobs: Arc<dyn BlobSource>,
        known: KnownManifests<'_>,
    ) -> Result<u64, TreeError> {
        let mut client = trees(self.wired().await?);
        let digest = manifest.outline_digest();
        let (give, requests) = mpsc::channel(AHEAD);
        let golden = UpdateGolden { directory: bytes_of(directory), digest: digest.0.to_vec().into() };
        let first = UpdateGoldenRequest { message: Some(ToUpdate::Golden(golden)) };
        give.send(first).await.map_err(|_| TreeError::Broken)?;
        let answer = client.update_golden(Requests(requests)).await.map_err(|status| AgentError::of(&status))?;
        let mut answers = answer.into_inner();
        let mut sent = 0;
        let mut failed = None;
        loop {
            let next = answers.message().await.map_err(|status| AgentError::of(&status))?;
            let (manifest, give) = (Arc::clone(&manifest), give.clone());
            let sending = match next.and_then(|next| next.message) {
                Some(Updated::Held(held)) => {
                    let held = <[u8; 32]>::try_from(&held[..]).map(Digest);
                    let held = held.map_err(|_| AgentError::Protocol("a digest of another length".to_owned()))?;
                    let before = if held == digest { None } else { known(held) };
                    let form = if held == digest { SAME } else { before.as_ref().map_or(WHOLE, |_| DELTA) };
                    send(give, move |mut to| {
                        to.write_all(&[form]).map_err(StreamError::Cut)?;
                        match before {
                            Some(before) => delta(&before, &manifest, &mut to),
                            None if form == SAME => Ok(()),
                            None => send_manifest(&manifest, &mut to),
                        }
                    })
                }
                Some(Updated::Lacking(bits)) => {
                    let blobs = Arc::clone(&blobs);
                    send(give, move |mut to| send_contents(&manifest, &Wanted::Some(bits.into()), &*blobs, &mut to))
                }
                Some(Updated::Done(_)) => return Ok(sent),
                Some(Updated::Failure(failure)) => return Err(TreeError::There(failure.into())),
                None => {
                    let cut = || AgentError::Connection("the agent broke off".to_owned()).into();
                    return Err(failed.map_or_else(cut, TreeError::Here));
                }
            };
            match sending.await.map_err(|_| TreeError::Broken)? {
                Ok(bytes) => sent += bytes,
                // The other side says why, or is gone.
                Err(StreamError::Cut(error)) => failed = Some(StreamError::Cut(error)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts a copy of the golden tree in `golden` where `to` says, if it is the one with this
    /// [`outline_digest`](Manifest::outline_digest).
    ///
    /// # Errors
    /// [`TreeError`]. A part of it may be there then.
    pub async fn copy_golden(&self, golden: impl Into<PathBuf>, digest: Digest, to: PutTree) -> Result<(), TreeError> {
        let request = CopyGoldenRequest { golden: bytes_of(golden), digest: digest.0.to_vec().into(), put: Some(to) };
        let mut client = trees(self.wired().await?);
        let answer = client.copy_golden(request).await.map_err(|status| AgentError::of(&status))?;
        answer.into_inner().failure.map_or(Ok(()), |failure| Err(TreeError::There(failure.into())))
    }
}

/// Sends what is written in pieces, on a thread that may wait; how many bytes they have.
fn send(
    give: mpsc::Sender<UpdateGoldenRequest>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), StreamError> + Send + 'static,
) -> tokio::task::JoinHandle<Result<u64, StreamError>> {
    tokio::task::spawn_blocking(move || {
        let mut sent = 0;
        let mut to = ChunkWriter::new(|piece: Vec<u8>| {
            sent += piece.len() as u64;
            let piece = UpdateGoldenRequest { message: Some(ToUpdate::Piece(piece.into())) };
            give.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
        });
        write(&mut to)?;
        to.finish().map_err(StreamError::Cut)?;
        Ok(sent)
    })
}
