//! The server as its clients see it.

use std::io;
use std::time::{Duration, Instant};

use executr_api::{ApiError, Client, JobStatus, Submission};
use executr_client::{ClientOptions, HttpClient};
use executr_spec::{JobId, Step, StepCommand};

/// A runtime of one thread: the measuring side takes as little of the machine as it can.
///
/// # Errors
/// When the system refuses.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A client of the server at `url`.
///
/// # Errors
/// When the URL is none.
pub fn client(url: &str) -> io::Result<HttpClient> {
    HttpClient::new(ClientOptions::new(url)).map_err(io::Error::other)
}

/// The answer of a call.
///
/// # Errors
/// As the call's, in words.
pub async fn call<T>(answer: impl Future<Output = Result<T, ApiError>>) -> io::Result<T> {
    answer.await.map_err(io::Error::other)
}

/// A job of one command.
#[must_use]
pub fn argv(words: &[&str]) -> Submission {
    let argv = words.iter().map(|&word| word.to_owned()).collect();
    Submission { steps: Some(vec![Step::new(StepCommand::Argv(argv))]), ..Submission::default() }
}

/// Submits `/bin/true` so many times in batches.
///
/// # Errors
/// When the server refuses.
pub async fn submit_trivial(client: &HttpClient, jobs: u32, batch: u32) -> io::Result<()> {
    for first in (0..jobs).step_by(batch as usize) {
        let part = (first..jobs.min(first + batch)).map(|_| argv(&["/bin/true"])).collect();
        call(client.submit_bulk(part)).await?;
    }
    Ok(())
}

/// Submits jobs of about `bytes` bytes of JSON each in batches.
///
/// # Errors
/// When the server refuses.
pub async fn submit_sized(client: &HttpClient, jobs: u32, batch: u32, bytes: usize) -> io::Result<()> {
    let frame = serde_json::to_string(&argv(&["/bin/true", ""]))?.len();
    let filler = "x".repeat(bytes.saturating_sub(frame));
    for first in (0..jobs).step_by(batch as usize) {
        let part = (first..jobs.min(first + batch)).map(|_| argv(&["/bin/true", &filler])).collect();
        call(client.submit_bulk(part)).await?;
    }
    Ok(())
}

/// Returns when so many executors are known.
///
/// # Errors
/// When they aren't within 20 s.
pub async fn wait_for_executors(client: &HttpClient, least: usize) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if client.workers().await.is_ok_and(|workers| workers.len() >= least) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(io::Error::other("the executors don't appear"))
}

/// Returns when so many jobs are completed.
///
/// # Errors
/// When one fails, or `limit` is over.
pub async fn wait_for_completed(client: &HttpClient, jobs: u64, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        let stats = call(client.stats()).await?;
        let count = |status: JobStatus| stats.jobs_by_status.get(status.as_str()).copied().unwrap_or(0);
        if count(JobStatus::Failed) > 0 {
            return Err(io::Error::other("a job failed"));
        }
        if count(JobStatus::Completed) >= jobs {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(io::Error::other("the jobs don't end in time"))
}

/// Returns when the job has the status.
///
/// # Errors
/// When it hasn't within 20 s.
pub async fn wait_for_status(client: &HttpClient, job: JobId, status: JobStatus) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if call(client.job(job)).await?.status == status {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(io::Error::other(format!("the job is not {status}")))
}
