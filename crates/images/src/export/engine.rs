//! Images loaded into an engine that runs: Docker's or Podman's, by the call that `docker load` makes.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::{Body, Client};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::archive::archive;
use crate::access::Access;
use crate::error::ImageError;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::ImageStore;

/// Bytes that are sent at once.
const PIECE: usize = 256 * 1024;

const LOOK: &str = "look whether it runs, and whether you may speak to it; `--engine ADDRESS` names another";

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineAddress {
    /// A socket: `unix:///run/docker.sock`.
    Unix(PathBuf),
    /// A host and port without TLS: `tcp://127.0.0.1:2375`.
    Tcp(String),
}

impl FromStr for EngineAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text.strip_prefix("unix://"), text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"))) {
            (Some(path), _) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            (_, Some(host)) if !host.is_empty() => Ok(Self::Tcp(host.trim_end_matches('/').to_owned())),
            _ => Err(format!("`{text}` is no address of an engine; write unix:///run/docker.sock or tcp://HOST:PORT")),
        }
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// A line of what an engine answers.
#[derive(Deserialize)]
struct Line {
    error: Option<String>,
}

impl ImageStore {
    /// Loads an image of the store into an engine.
    ///
    /// # Errors
    /// When it isn't here, a layer can't be had, or the engine doesn't take it.
    pub async fn load(
        &self,
        name: &Reference,
        engine: &EngineAddress,
        access: &Access,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), ImageError> {
        let refused = |why: String, remedy| ImageError::Engine {
            address: engine.to_string(),
            reference: name.to_string(),
            why,
            remedy,
        };
        let (known, config) = self.here(name).await?;
        let _lease = self.lease(&known)?;
        self.all_as_they_travel(name, &known, access, progress).await?;
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder().no_proxy();
        let (client, host) = match engine {
            EngineAddress::Unix(path) => (client.unix_socket(path.as_path()), "engine"),
            EngineAddress::Tcp(host) => (client, host.as_str()),
        };
        let client = client.build().map_err(|error| refused(error.to_string(), LOOK))?;
        let (sender, receiver) = mpsc::channel(8);
        let body = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|piece: io::Result<Bytes>| (piece, receiver))
        });
        let packing = self.blocking(name, move |store, name| {
            let mut pieces = Pieces { sender, gathered: Vec::with_capacity(PIECE) };
            let packed = archive(store, name, &known, &config, &mut pieces).map(drop);
            match packed.and_then(|()| pieces.flush()) {
                Ok(()) => Ok(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ok(())),
                // So that the engine doesn't take the end of it for all of it.
                Err(error) => {
                    let told = io::Error::other(error.to_string());
                    drop(pieces.sender.blocking_send(Err(told)));
                    Ok(Err(error))
                }
            }
        });
        let sending = client
            .post(format!("http://{host}/images/load?quiet=1"))
            .header("Content-Type", "application/x-tar")
            .body(Body::wrap_stream(body))
            .send();
        let (packed, sent) = tokio::join!(packing, sending);
        packed?.map_err(ImageError::store("read the blobs in", self.root()))?;
        let answer = sent.map_err(|error| refused(chain(&error), LOOK))?;
        let status = answer.status();
        let said = answer.text().await.map_err(|error| refused(chain(&error), LOOK))?;
        let error = said.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).find_map(|line| line.error);
        match error {
            Some(error) => {
                Err(refused(error, "look into its log; an old engine may not know how layers are compressed"))
            }
            None if status.is_success() => Ok(()),
            None => Err(refused(format!("{status}: {}", said.trim()), "look into its log")),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What is written, sent on in pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..taken]);
        if self.gathered.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE));
        // Nobody takes it any more: the engine has said why.
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
