//! A program of this machine, on its way to the server.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use executr_api::{ApiError, Client as _, ErrorCode};
use executr_client::HttpClient;
use executr_spec::{Digest, Hasher};
use futures_util::stream;

use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{Progress, amount};

/// How much is read at a time.
const PIECE: usize = 1 << 18;
/// Below this size nobody wants to hear about it.
const WORTH_TELLING: u64 = 8 << 20;

/// Makes sure that the server has the file at `path`; returns its digest.
pub(super) async fn upload(client: &HttpClient, path: &Path) -> Result<Digest> {
    let doing = |error| Failure::doing(format!("read {}", path.display()), error);
    let told = |error: ApiError| Failure::api(&error, Some(client.server()));
    let file = File::open(path).map_err(|error| {
        doing(error).remedy(
            "a command with a relative path is uploaded from here; write an absolute path for a program \
                             of the executor's machine",
        )
    })?;
    let size = match file.metadata().map_err(doing)? {
        metadata if metadata.is_file() => metadata.len(),
        _ => return Err(Failure::new(Exit::USAGE, format!("{} is not a file", path.display()))),
    };
    let digest = digest_of(&file).map_err(doing)?;
    if client.has_blob(digest).await.map_err(told)? {
        return Ok(digest);
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let progress = (size >= WORTH_TELLING).then(|| Progress::of_bytes(&format!("uploading {name}"), size));
    if let Some(progress) = &progress {
        progress.say_in_pipe(&format!("uploading {name}, {}", amount(size)));
    }
    let file = File::open(path).map_err(doing)?;
    let pieces = stream::try_unfold((file, progress), |(file, progress)| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE);
            (&file).take(PIECE as u64).read_to_end(&mut piece).map(|_| (piece, file))
        });
        let broken = |error: &dyn std::fmt::Display| {
            ApiError::new(ErrorCode::Internal, format!("the file can't be read: {error}"))
        };
        let (piece, file) = read.await.map_err(|error| broken(&error))?.map_err(|error| broken(&error))?;
        if piece.is_empty() {
            return Ok(None);
        }
        if let Some(progress) = &progress {
            progress.advance(piece.len() as u64);
        }
        Ok(Some((piece.into(), (file, progress))))
    });
    client.put_blob(digest, Box::pin(pieces)).await.map_err(told)?;
    Ok(digest)
}

fn digest_of(mut file: &File) -> std::io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}
