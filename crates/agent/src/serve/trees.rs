//! The calls of `service Trees`: between a caller's stream and the thread that does it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use executr_agent_protocol::v1::archive_request::Message as ToPack;
use executr_agent_protocol::v1::archive_response::Message as Archived;
use executr_agent_protocol::v1::put_tree_request::Message as Put;
use executr_agent_protocol::v1::take_tree_response::Message as Taken;
use executr_agent_protocol::v1::trees_server::Trees;
use executr_agent_protocol::v1::update_golden_request::Message as ToUpdate;
use executr_agent_protocol::v1::update_golden_response::Message as Updated;
use executr_agent_protocol::v1::{
    ArchiveRequest, ArchiveResponse, Change, ChangesRequest, ChangesResponse, CopyGoldenRequest, CopyGoldenResponse,
    News, NoteTreeRequest, NoteTreeResponse, Packed, PutTreeRequest, PutTreeResponse, TakeTreeRequest,
    TakeTreeResponse, UpdateGoldenRequest, UpdateGoldenResponse, WatchRequest, WatchResponse,
};
use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::trees::{self, AHEAD, Goldens, Notes, Pieces, Stop, apart};

/// Changes in one message.
const TOGETHER: usize = 4096;
/// The most changes of one archive, as many as a tree has entries.
const MOST: usize = executr_tree::MAX_ENTRIES;

/// The service.
#[derive(Clone, Default)]
pub(super) struct TreeCalls {
    notes: Arc<Notes>,
    goldens: Arc<Goldens>,
}

#[tonic::async_trait]
impl Trees for TreeCalls {
    type TakeTreeStream = Answers<TakeTreeResponse>;
    type ChangesStream = Answers<ChangesResponse>;
    type WatchStream = Answers<WatchResponse>;
    type ArchiveStream = Answers<ArchiveResponse>;
    type UpdateGoldenStream = Answers<UpdateGoldenResponse>;

    async fn put_tree(&self, request: Request<Streaming<PutTreeRequest>>) -> Result<Response<PutTreeResponse>, Status> {
        let mut said = request.into_inner();
        let Some(Put::Put(what)) = said.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message says where the tree goes"));
        };
        absolute(&what.directory)?;
        let (give, pieces) = mpsc::channel::<Bytes>(AHEAD);
        let stop = Stop::default();
        let (stopped, notes) = (Arc::clone(&stop.0), Arc::clone(&self.notes));
        let putting = apart(move || trees::put(&stopped, &what, Pieces(pieces), &notes));
        let feeding = async {
            while let Some(Put::Piece(piece)) = said.message().await?.and_then(|next| next.message) {
                if give.send(piece).await.is_err() {
                    // It failed, and says why.
                    break;
                }
            }
            drop(give);
            Ok::<_, Status>(())
        };
        // A caller that is gone is no matter: then the pieces end too early.
        let (put, _) = tokio::join!(putting, feeding);
        drop(stop);
        let put = put.ok_or_else(broken)?;
        Ok(Response::new(PutTreeResponse { failure: put.err() }))
    }

    async fn take_tree(
        &self,
        request: Request<TakeTreeRequest>,
    ) -> Result<Response<Answers<TakeTreeResponse>>, Status> {
        let what = request.into_inner();
        absolute(&what.directory)?;
        Ok(Response::new(Answers::of(move |stop, answer| {
            let piece = |piece: Vec<u8>| {
                let piece = TakeTreeResponse { message: Some(Taken::Piece(piece.into())) };
                answer(piece).map_err(|()| io::ErrorKind::BrokenPipe.into())
            };
            let last = match trees::take(&stop.0, &what, piece) {
                Ok(true) => return,
                Ok(false) => Taken::Missing(true),
                Err(failure) => Taken::Failure(failure),
            };
            // Whoever is gone needn't know.
            let _ = answer(TakeTreeResponse { message: Some(last) });
        })))
    }

    async fn note_tree(&self, request: Request<NoteTreeRequest>) -> Result<Response<NoteTreeResponse>, Status> {
        let directory = absolute(&request.get_ref().directory)?;
        let notes = Arc::clone(&self.notes);
        let noted = apart(move || notes.note(&directory)).await.ok_or_else(broken)?;
        Ok(Response::new(NoteTreeResponse { failure: noted.err() }))
    }

    async fn changes(&self, request: Request<ChangesRequest>) -> Result<Response<Answers<ChangesResponse>>, Status> {
        let directory = absolute(&request.get_ref().directory)?;
        let notes = Arc::clone(&self.notes);
        Ok(Response::new(Answers::of(move |_, answer| match notes.changes(&directory) {
            Ok(changes) => {
                for together in changes.all().chunks(TOGETHER) {
                    let changes = together.iter().map(change).collect();
                    if answer(ChangesResponse { changes, failure: None }).is_err() {
                        return;
                    }
                }
            }
            // Whoever is gone needn't know.
            Err(failure) => drop(answer(ChangesResponse { changes: Vec::new(), failure: Some(failure) })),
        })))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Answers<WatchResponse>>, Status> {
        let directory = absolute(&request.get_ref().directory)?;
        let notes = Arc::clone(&self.notes);
        Ok(Response::new(Answers::of(move |stop, answer| {
            if let Err(failure) = trees::watch(&stop.0, &directory, &notes, answer) {
                // Whoever is gone needn't know.
                let _ = answer(WatchResponse { failure: Some(failure), ..WatchResponse::default() });
            }
        })))
    }

    async fn archive(
        &self,
        request: Request<Streaming<ArchiveRequest>>,
    ) -> Result<Response<Answers<ArchiveResponse>>, Status> {
        let mut said = request.into_inner();
        let Some(ToPack::Archive(what)) = said.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message says what is to be packed"));
        };
        absolute(&what.directory)?;
        let mut changes = Vec::new();
        while let Some(ToPack::Changed(more)) = said.message().await?.and_then(|next| next.message) {
            if changes.len() + more.changes.len() > MOST {
                return Err(Status::resource_exhausted("there are too many changes for one archive; leave some out"));
            }
            changes.extend(more.changes);
        }
        Ok(Response::new(Answers::of(move |_, answer| {
            let piece = |piece: Vec<u8>| {
                let piece = ArchiveResponse { message: Some(Archived::Piece(piece.into())) };
                answer(piece).map_err(|()| io::ErrorKind::BrokenPipe.into())
            };
            let last = match trees::pack(&what, changes, piece) {
                Ok(packed) => Archived::Packed(Packed { files: packed.files, deleted: packed.deleted }),
                Err(failure) => Archived::Failure(failure),
            };
            // Whoever is gone needn't know.
            let _ = answer(ArchiveResponse { message: Some(last) });
        })))
    }

    async fn update_golden(
        &self,
        request: Request<Streaming<UpdateGoldenRequest>>,
    ) -> Result<Response<Answers<UpdateGoldenResponse>>, Status> {
        let mut said = request.into_inner();
        let Some(ToUpdate::Golden(what)) = said.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message says which tree it is to be"));
        };
        absolute(&what.directory)?;
        let (give, pieces) = mpsc::channel::<Bytes>(AHEAD);
        // Ends with the caller, or with the thread that takes the pieces.
        tokio::spawn(async move {
            while let Ok(Some(UpdateGoldenRequest { message: Some(ToUpdate::Piece(piece)) })) = said.message().await {
                if give.send(piece).await.is_err() {
                    break;
                }
            }
        });
        let goldens = Arc::clone(&self.goldens);
        Ok(Response::new(Answers::of(move |stop, answer| {
            let tell = |message| answer(UpdateGoldenResponse { message: Some(message) });
            let last = match goldens.update(&stop.0, &what, Pieces(pieces), tell) {
                Ok(()) => Updated::Done(true),
                Err(failure) => Updated::Failure(failure),
            };
            // Whoever is gone needn't know.
            let _ = tell(last);
        })))
    }

    async fn copy_golden(&self, request: Request<CopyGoldenRequest>) -> Result<Response<CopyGoldenResponse>, Status> {
        let what = request.into_inner();
        absolute(&what.golden)?;
        absolute(what.put.as_ref().map(|put| &put.directory[..]).unwrap_or_default())?;
        let stop = Stop::default();
        let (stopped, goldens, notes) = (Arc::clone(&stop.0), Arc::clone(&self.goldens), Arc::clone(&self.notes));
        let copied = apart(move || goldens.copy(&stopped, &what, &notes)).await.ok_or_else(broken)?;
        drop(stop);
        Ok(Response::new(CopyGoldenResponse { failure: copied.err() }))
    }
}

fn change(change: &executr_tree::Change) -> Change {
    let news = match change.news {
        executr_tree::News::Added => News::Added,
        executr_tree::News::Modified => News::Modified,
        executr_tree::News::Mode => News::Mode,
        executr_tree::News::Deleted => News::Deleted,
    };
    let path = Bytes::copy_from_slice(change.path.as_os_str().as_bytes());
    Change { path, news: news.into(), directory: change.is_directory }
}

fn absolute(path: &[u8]) -> Result<PathBuf, Status> {
    let path = Path::new(OsStr::from_bytes(path));
    if path.is_absolute() && !path.as_os_str().as_bytes().contains(&0) {
        return Ok(path.to_owned());
    }
    Err(Status::invalid_argument("a path must be absolute, and without a zero byte"))
}

fn broken() -> Status {
    Status::resource_exhausted("no thread could do it; end something there and call again")
}

/// What a thread answers, one message after another. Dropped, the caller has gone, and the thread is told to stop.
pub(super) struct Answers<T> {
    answers: mpsc::Receiver<Result<T, Status>>,
    _stop: Stop,
}

impl<T: Send + 'static> Answers<T> {
    /// Those of `work`, which is given what tells it to stop and what sends an answer: that fails once the caller has gone.
    fn of(work: impl FnOnce(&Stop, &dyn Fn(T) -> Result<(), ()>) + Send + 'static) -> Self {
        let (give, answers) = mpsc::channel(AHEAD);
        let stop = Stop::default();
        let stopped = Stop(Arc::clone(&stop.0));
        let sender = give.clone();
        tokio::spawn(async move {
            let done = apart(move || {
                // Only the caller's going sets it: this one is never dropped before the work is done.
                work(&stopped, &|answer| sender.blocking_send(Ok(answer)).map_err(|_| ()));
            });
            if done.await.is_none() {
                // Whoever is gone needn't know.
                let _ = give.send(Err(broken())).await;
            }
        });
        Self { answers, _stop: stop }
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_recv(context)
    }
}
