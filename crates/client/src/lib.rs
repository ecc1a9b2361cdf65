//! The API over HTTP: [`HttpClient`] is the [`Client`](executr_api::Client) and [`RunClient`](executr_api::RunClient) that
//! people's programs use, and the [`WorkerApi`](executr_api::WorkerApi) that workers use. This crate is the Rust SDK.
//!
//! It reads no environment and no files but the one that [`ClientOptions::ca_cert`] names. Every call is bounded in time.
//! Calls that may safely be sent twice are repeated a few times when the server can't be reached; the others are only
//! repeated when they certainly didn't reach it. Output and events that are followed go on where they broke off.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use executr_api::{Client, Submission};
//! use executr_client::{ClientOptions, HttpClient};
//! use executr_spec::{Step, StepCommand};
//!
//! # async fn example() -> Result<(), executr_api::ApiError> {
//! let client = HttpClient::new(ClientOptions::new("http://localhost:8080"))?;
//! let step = Step::new(StepCommand::Run("echo hello".to_owned()));
//! let job = client.submit(Submission { steps: Some(vec![step]), ..Submission::default() }).await?;
//! let job = client.wait(job.id, Duration::from_secs(60)).await?;
//! assert_eq!(job.stdout.as_deref(), Some("hello\n"));
//! # Ok(())
//! # }
//! ```
//!
//! `examples/submit.rs` is a whole program.

mod calls;
mod console;
mod event_stream;
mod failure;
mod http;
mod options;
mod output;
mod run_calls;
mod run_events;
mod server_url;
mod sse;
mod tls;
mod transfer;
mod worker_calls;

pub use http::HttpClient;
pub use options::ClientOptions;
