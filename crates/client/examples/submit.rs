//! Submits a job, shows its output as it appears, and returns how it ended.
//!
//! ```sh
//! executr up &
//! cargo run -p executr-client --example submit -- http://localhost:8080
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it gets")]

use std::io::{self, Write};

use executr_api::output::Record;
use executr_api::{ApiError, Client, JobStatus, OutputEvent, OutputFollow, Submission};
use executr_client::{ClientOptions, HttpClient};
use executr_spec::{Step, StepCommand};
use futures_util::StreamExt;

#[tokio::main]
async fn main() -> Result<(), ApiError> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "http://localhost:8080".to_owned());
    let client = HttpClient::new(ClientOptions::new(server))?;
    let status = run(&client, "echo hello; sleep 1; echo done", &mut io::stdout()).await?;
    println!("the job is {status}");
    Ok(())
}

/// Runs `script` as a job and writes its output to `out` as it comes.
///
/// # Errors
/// What the server says.
pub(crate) async fn run(
    client: &HttpClient,
    script: &str,
    out: &mut (dyn Write + Send),
) -> Result<JobStatus, ApiError> {
    let step = Step::new(StepCommand::Run(script.to_owned()));
    let job = client.submit(Submission { steps: Some(vec![step]), ..Submission::default() }).await?;

    // Goes on by itself where its connection breaks, until the job is final.
    let follow = OutputFollow { follow: true, ..OutputFollow::default() };
    let mut output = client.output(job.id, follow).await?;
    while let Some(event) = output.next().await {
        match event? {
            OutputEvent::Attempt(_) => {}
            OutputEvent::Chunk(chunk) => {
                for record in chunk.records.iter() {
                    if let Record::Data { bytes, .. } = record
                        && out.write_all(&bytes).is_err()
                    {
                        // Nobody reads any more; the job runs on.
                        return Ok(JobStatus::Running);
                    }
                }
            }
            OutputEvent::End(status) => return Ok(status),
        }
    }
    Ok(client.job(job.id).await?.status)
}
