//! How `executr exec` reaches a run in another process of this machine: a Unix socket in the run's directory, for its owner
//! alone.
//!
//! A call begins with two questions, each a line of JSON, and their answers: which job is meant ([`Which`] → [`Meant`]), and
//! then, by the word `open`, a console in it. From then on it carries frames.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use executr_api::console::{ConsoleEnd, ConsoleFrame, ConsoleLine, Passed, linger, pass};
use executr_api::{ApiError, Client as _, ErrorCode, JobState, RunClient};
use executr_coordinator::{Coordinator, TenantClient};
use executr_spec::{JobId, RunId, Tenant};
use futures_util::SinkExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// What the socket is called in a run's directory.
const NAME: &str = "consoles";
/// How many calls are taken at a time.
const MOST: usize = 64;
/// How long either side may take to say a line.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a caller may take to take the last word.
const GOODBYE: Duration = Duration::from_secs(2);
/// The longest line.
const LONGEST: usize = 64 << 10;

/// Takes calls until it is dropped.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    path: PathBuf,
    task: AbortHandle,
}

/// Which job a caller means.
#[derive(Debug, Serialize, Deserialize)]
struct Which {
    /// Its name, its id, or the beginning of that.
    job: String,
}

/// Which job that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meant {
    /// Its name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: JobId,
    /// Where it stands.
    pub(crate) state: JobState,
}

/// A call that somebody answered.
#[derive(Debug)]
pub(crate) struct Call {
    stream: UnixStream,
    /// The job that is meant.
    pub(crate) meant: Meant,
}

impl ConsoleSocket {
    /// Takes calls for jobs of this run.
    pub(crate) fn listen(directory: &Path, coordinator: &Coordinator, run: RunId) -> io::Result<Self> {
        let path = directory.join(NAME);
        // What a process left that died.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // By way of its directory: an address holds only 108 bytes.
        let within = File::open(directory)?;
        let listener = StdListener::bind(short(&within))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let client = coordinator.client(Tenant::default());
        let task = tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MOST));
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let client = client.clone();
                        tokio::spawn(async move {
                            answer(stream, &client, run).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a call of `executr exec` can't be taken");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Self { path, task: task.abort_handle() })
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        self.task.abort();
        drop(fs::remove_file(&self.path));
    }
}

fn short(directory: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(NAME)
}

/// Asks the process that has the run in `directory` open for one of its jobs; `None` when nobody answers there.
pub(crate) async fn call(directory: &Path, job: &str) -> Result<Option<Call>, ApiError> {
    let Ok(within) = File::open(directory) else { return Ok(None) };
    let Ok(stream) = StdStream::connect(short(&within)) else { return Ok(None) };
    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)).map_err(broken)?;
    let mut stream = stream;
    say(&mut stream, &Which { job: job.to_owned() }).await?;
    let meant = hear::<Result<Meant, ApiError>>(&mut stream).await??;
    Ok(Some(Call { stream, meant }))
}

impl Call {
    /// Opens a console in the job.
    pub(crate) async fn open(mut self) -> Result<ConsoleLine, ApiError> {
        say(&mut self.stream, &"open").await?;
        hear::<Result<(), ApiError>>(&mut self.stream).await??;
        Ok(ConsoleLine::over(self.stream))
    }
}

async fn answer(mut stream: UnixStream, client: &TenantClient, run: RunId) {
    match prepared(&mut stream, client, run).await {
        Ok(Some(host)) => relay(host, ConsoleLine::over(stream)).await,
        // The caller was told, or only asked.
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "a call of `executr exec` ended early"),
    }
}

/// What leads to the worker, once the caller wants that.
async fn prepared(stream: &mut UnixStream, client: &TenantClient, run: RunId) -> Result<Option<ConsoleLine>, ApiError> {
    let which: Which = hear(stream).await?;
    let meant = find(client, run, &which.job).await;
    say(stream, &meant).await?;
    let Ok(meant) = meant else { return Ok(None) };
    if hear::<String>(stream).await.is_err() {
        return Ok(None);
    }
    let (line, answer) = match client.console(meant.id).await {
        Ok(line) => (Some(line), Ok(())),
        Err(error) => (None, Err(error)),
    };
    say::<Result<(), ApiError>>(stream, &answer).await?;
    Ok(line)
}

/// Passes frames on between the two ends until one of them is done.
async fn relay(host: ConsoleLine, caller: ConsoleLine) {
    let ConsoleLine { sink: mut to_caller, frames: mut from_caller } = caller;
    let ConsoleLine { sink: mut to_host, frames: mut from_host } = host;
    let passed = tokio::select! {
        passed = pass(&mut from_host, &mut to_caller, || {}) => passed,
        // It is told by what is dropped here.
        _ = pass(&mut from_caller, &mut to_host, || {}) => return,
    };
    let goodbye = async {
        if passed == Passed::Gone {
            to_caller.send(ConsoleFrame::End(ConsoleEnd::because("the run's process ended it"))).await?;
        }
        linger(&mut from_caller).await;
        Ok::<(), ApiError>(())
    };
    // Nobody may be there to be told, or to take it.
    let _ = timeout(GOODBYE, goodbye).await;
}

/// The job of the run that is meant.
async fn find(client: &TenantClient, run: RunId, job: &str) -> Result<Meant, ApiError> {
    let mut found: Vec<Meant> = Vec::new();
    let mut from = 0;
    loop {
        let page = client.run_jobs(run, from, None).await?;
        if page.is_empty() {
            break;
        }
        for view in page {
            from = view.index + 1;
            let meant = Meant { name: view.name, id: view.id, state: view.state };
            if meant.name == job || meant.id.to_string() == job {
                return Ok(meant);
            }
            if is_beginning(job, &meant.id.to_string()) {
                found.push(meant);
            }
        }
    }
    match &found[..] {
        [only] => Ok(only.clone()),
        [] => Err(ApiError::new(ErrorCode::NotFound, format!("run {run} has no job `{job}`"))),
        several => {
            let text = format!("`{job}` is the beginning of {} ids; give more of it", several.len());
            Err(ApiError::new(ErrorCode::BadRequest, text))
        }
    }
}

/// Whether a word is the beginning of an id, and not just of any.
pub(crate) fn is_beginning(word: &str, id: &str) -> bool {
    word.len() >= SHORTEST && id.starts_with(&word.to_ascii_lowercase())
}

/// The least that is taken for the beginning of an id.
const SHORTEST: usize = 4;

async fn say<T: Serialize>(stream: &mut UnixStream, what: &T) -> Result<(), ApiError> {
    let mut line = serde_json::to_vec(what).map_err(|error| broken(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broken)
}

/// A line, and not a byte more: what comes behind may be frames.
async fn hear<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, ApiError> {
    let line = async {
        let mut line = Vec::new();
        loop {
            match stream.read_u8().await? {
                b'\n' => return Ok(line),
                _ if line.len() >= LONGEST => return Err(io::ErrorKind::InvalidData.into()),
                byte => line.push(byte),
            }
        }
    };
    let line = timeout(PATIENCE, line).await.map_err(|_| broken(io::ErrorKind::TimedOut.into()))?.map_err(broken)?;
    serde_json::from_slice(&line).map_err(|error| broken(error.into()))
}

fn broken(error: io::Error) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, format!("the process that has the run can't be spoken to: {error}"))
}
