//! Bytes from a source into the cache's directory.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use executr_api::{RetryDelay, WorkerApi};
use executr_spec::Digest;
use executr_tree::{BlobDirError, Partial};
use futures_util::StreamExt;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Response, StatusCode, Url, redirect};

use super::source::{Source, without_secrets};
use super::{BinaryCache, CacheError, CacheEvent};

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// How often a download that makes no progress is tried.
const TRIES: u32 = 4;

/// Why one try didn't bring everything.
enum Broken {
    /// Nothing else will come of it.
    Final(CacheError),
    /// The next try may go on.
    Passing(CacheError),
}

impl From<BlobDirError> for Broken {
    fn from(error: BlobDirError) -> Self {
        Self::Final(error.into())
    }
}

impl BinaryCache {
    /// Brings the program, tried again as long as that brings more; its size in bytes.
    pub(super) async fn download(
        &self,
        source: &Source,
        digest: Digest,
        mut partial: Partial,
        api: &Arc<dyn WorkerApi>,
        token: &str,
    ) -> Result<u64, CacheError> {
        let url = source.to_string();
        let mut delay = RetryDelay::default();
        let (mut tries, mut furthest) = (0, partial.length());
        let mut resumed = furthest > 0;
        loop {
            self.tell(CacheEvent::Started { digest, url: &url });
            tracing::info!(%digest, url, resumed_at = partial.length(), "downloading a binary");
            let outcome = match source {
                Source::File(path) => self.copy(path, &url, &mut partial).await,
                Source::Web(address) => self.get(address, &url, digest, &mut partial).await,
                Source::Blob(digest) => self.get_blob(*digest, &url, &mut partial, api, token).await,
            };
            match outcome {
                Ok(()) => {
                    let bytes = partial.length();
                    match commit(partial).await {
                        Ok(()) => return Ok(bytes),
                        // What was resumed may have been bytes of another version.
                        Err(BlobDirError::Mismatch { .. }) if resumed => {
                            resumed = false;
                            partial = self.blobs.bring(digest)?.ok_or_else(|| CacheError::Source {
                                url: url.clone(),
                                problem: "another process fetches it at the same time; try again".to_owned(),
                            })?;
                            continue;
                        }
                        Err(BlobDirError::Mismatch { expected, found }) => {
                            return Err(CacheError::Mismatch { url, expected, found });
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(Broken::Final(error)) => {
                    if error.is_final() {
                        partial.abandon();
                    }
                    return Err(error);
                }
                Err(Broken::Passing(error)) => {
                    if partial.length() > furthest {
                        (tries, furthest) = (0, partial.length());
                        delay.reset();
                    }
                    tries += 1;
                    if tries >= TRIES {
                        return Err(error);
                    }
                    resumed |= partial.length() > 0;
                    let wait = delay.next_delay();
                    tracing::info!(%digest, %error, ?wait, "a download broke off and is tried again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn copy(&self, path: &Path, url: &str, partial: &mut Partial) -> Result<(), Broken> {
        let failed = |problem: String| Broken::Final(CacheError::Source { url: url.to_owned(), problem });
        partial.restart()?;
        // To open a FIFO waits for its writer, unless told not to; reading a file doesn't mind.
        let mut file = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|error| failed(format!("{error}; the file must be on the machine of the worker")))?;
        let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
        if !metadata.is_file() {
            return Err(failed("it is not a file".to_owned()));
        }
        self.check_size(url, metadata.len())?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(|error| failed(error.to_string()))?;
            if read == 0 {
                return Ok(());
            }
            partial.append(&buffer[..read])?;
            self.check_size(url, partial.length())?;
            tokio::task::yield_now().await;
        }
    }

    async fn get_blob(
        &self,
        digest: Digest,
        url: &str,
        partial: &mut Partial,
        api: &Arc<dyn WorkerApi>,
        token: &str,
    ) -> Result<(), Broken> {
        let failed = |source: executr_api::ApiError| {
            let passing = source.code.is_transient();
            let error = CacheError::Blob { digest, source };
            if passing { Broken::Passing(error) } else { Broken::Final(error) }
        };
        let mut stream = api.blob(digest, partial.length(), token).await.map_err(failed)?;
        while let Some(bytes) = stream.next().await {
            self.take(digest, url, partial, &bytes.map_err(failed)?, None)?;
        }
        Ok(())
    }

    async fn get(&self, address: &Url, url: &str, digest: Digest, partial: &mut Partial) -> Result<(), Broken> {
        let passing = |error: reqwest::Error| {
            Broken::Passing(CacheError::Source { url: url.to_owned(), problem: explain(error) })
        };
        let client = self.http.get_or_try_init(|| async { self.client() }).await.map_err(passing)?;
        let mut request = client.get(address.clone());
        let resume = partial.validator().filter(|_| partial.length() > 0).map(str::to_owned);
        match &resume {
            Some(validator) => {
                request = request.header(RANGE, format!("bytes={}-", partial.length())).header(IF_RANGE, validator);
            }
            None => partial.restart()?,
        }
        let response = request.send().await.map_err(passing)?;
        let status = response.status();
        match status {
            StatusCode::PARTIAL_CONTENT
                if resume.is_some() && starts_at(response.headers()) == Some(partial.length()) => {}
            StatusCode::OK => partial.restart()?,
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                partial.restart()?;
                return Err(Broken::Passing(refused(url, status)));
            }
            _ if status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) =>
            {
                return Err(Broken::Passing(refused(url, status)));
            }
            _ => return Err(Broken::Final(refused(url, status))),
        }
        if let Some(validator) = validator(response.headers()) {
            partial.set_validator(&validator)?;
        }
        self.body(response, url, digest, partial).await
    }

    async fn body(
        &self,
        mut response: Response,
        url: &str,
        digest: Digest,
        partial: &mut Partial,
    ) -> Result<(), Broken> {
        let total = response.content_length().map(|rest| partial.length() + rest);
        if let Some(total) = total {
            self.check_size(url, total)?;
        }
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => self.take(digest, url, partial, &bytes, total)?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    return Err(Broken::Passing(CacheError::Source { url: url.to_owned(), problem: explain(error) }));
                }
            }
        }
    }

    fn take(
        &self,
        digest: Digest,
        url: &str,
        partial: &mut Partial,
        bytes: &[u8],
        total: Option<u64>,
    ) -> Result<(), Broken> {
        self.check_size(url, partial.length() + bytes.len() as u64)?;
        partial.append(bytes)?;
        self.tell(CacheEvent::Progress { digest, bytes: partial.length(), total });
        Ok(())
    }

    fn check_size(&self, url: &str, bytes: u64) -> Result<(), Broken> {
        let limit = self.options.max_binary_bytes;
        if bytes > limit {
            return Err(Broken::Final(CacheError::TooLarge { url: url.to_owned(), limit }));
        }
        Ok(())
    }

    fn client(&self) -> Result<reqwest::Client, reqwest::Error> {
        // The first to install one decides for the process; any does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .connect_timeout(self.options.connect_timeout)
            .read_timeout(self.options.idle_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .redirect(redirect::Policy::custom(follow))
            .user_agent(concat!("executr/", env!("CARGO_PKG_VERSION")))
            .build()
    }
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match refusal(attempt.previous(), attempt.url()) {
        Some(refusal) => attempt.error(refusal),
        None => attempt.follow(),
    }
}

/// Why a redirect to `next` isn't followed, after `previous` was asked.
fn refusal(previous: &[Url], next: &Url) -> Option<String> {
    if next.scheme() != "https" && previous.last().is_some_and(|previous| previous.scheme() == "https") {
        let to = without_secrets(next.clone());
        return Some(format!("it redirects from https to {to}, which isn't encrypted"));
    }
    (previous.len() > MAX_REDIRECTS).then(|| format!("it redirects more than {MAX_REDIRECTS} times"))
}

async fn commit(partial: Partial) -> Result<(), BlobDirError> {
    match tokio::task::spawn_blocking(move || partial.commit()).await {
        Ok(committed) => committed,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn refused(url: &str, status: StatusCode) -> CacheError {
    let advice = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => "; check the URL",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; the worker is not allowed to read it",
        _ => "",
    };
    CacheError::Source { url: url.to_owned(), problem: format!("the server answered {status}{advice}") }
}

/// The error and its causes, without the URL, which stands in the message already and may hold secrets here.
fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// What names the version of what is sent, if it can be asked for again: RFC 9110, 13.1.5.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
    text(ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(LAST_MODIFIED)).map(str::to_owned)
}

/// The first position of a part: `bytes 100-199/200`.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_neither_give_up_encryption_nor_go_on_for_ever() {
        let url = |text: &str| Url::parse(text).unwrap();
        let [plain, secure] = [url("http://h/?token=1"), url("https://h/")];
        assert_eq!(refusal(std::slice::from_ref(&plain), &secure), None);
        assert_eq!(refusal(std::slice::from_ref(&secure), &secure), None);
        let refused = refusal(&[plain.clone(), secure.clone()], &plain).unwrap();
        assert!(refused.contains("isn't encrypted") && !refused.contains("token"), "{refused}");
        assert_eq!(refusal(&vec![secure.clone(); MAX_REDIRECTS], &secure), None);
        assert!(refusal(&vec![secure.clone(); MAX_REDIRECTS + 1], &secure).is_some());
    }

    #[test]
    fn only_versions_that_can_be_asked_for_again_are_remembered() {
        let headers = |pairs: &[(reqwest::header::HeaderName, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.clone(), reqwest::header::HeaderValue::from_static(value))).collect()
        };
        let date = "Fri, 20 Nov 2026 00:00:00 GMT";
        assert_eq!(validator(&headers(&[(ETAG, "\"a\""), (LAST_MODIFIED, date)])).as_deref(), Some("\"a\""));
        assert_eq!(validator(&headers(&[(ETAG, "W/\"a\""), (LAST_MODIFIED, date)])).as_deref(), Some(date));
        assert_eq!(validator(&headers(&[(ETAG, "W/\"a\"")])), None);
        assert_eq!(starts_at(&headers(&[(CONTENT_RANGE, "bytes 100-199/200")])), Some(100));
        assert_eq!(starts_at(&headers(&[(CONTENT_RANGE, "bytes */200")])), None);
    }
}
