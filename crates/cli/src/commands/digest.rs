//! The digest of a program at a URL, for those who don't give it: computed by reading the program once.

use std::io;

use executr_spec::{Digest, Hasher};

use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::Progress;

/// Reads what is at `url`, keeping nothing but its digest.
pub(super) async fn of_url(url: &str) -> Result<Digest> {
    if let Some(path) = url.strip_prefix("file://") {
        return of_file(path).map_err(|error| failure(url, &error));
    }
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(Failure::new(Exit::USAGE, format!("{url} is no http, https or file URL"))
            .remedy("give the digest of what is there with --binary-sha256, or another URL"));
    }
    // The executor's client verifies certificates the same way.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().build().map_err(|error| failure(url, &error))?;
    let mut response = client
        .get(url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| failure(url, &error))?;
    let progress = Progress::of_bytes("reading the program for its digest", response.content_length().unwrap_or(0));
    progress.say_in_pipe(&format!("reading {url} for its digest"));
    let mut hasher = Hasher::default();
    while let Some(piece) = response.chunk().await.map_err(|error| failure(url, &error))? {
        hasher.update(&piece);
        progress.advance(piece.len() as u64);
    }
    Ok(hasher.finish())
}

fn of_file(path: &str) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut file = std::fs::File::open(path)?;
    let mut piece = vec![0; 1 << 18];
    loop {
        match io::Read::read(&mut file, &mut piece)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}

fn failure(url: &str, error: &dyn std::error::Error) -> Failure {
    // The innermost error says what happened; those around it only where.
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Failure::new(Exit::FAILURE, format!("could not read {url} for its digest: {innermost}"))
        .remedy("check the URL, or give the digest with --binary-sha256: then it is not read from here")
}
