//! The coordinator over HTTP: REST, streams, metrics, authentication.
//!
//! [`serve`] answers requests on one listener until it is told to stop. A request passes one gate (`gate`: its id, its
//! time, its metrics, its panics), is matched to a route (`routes`), must be allowed (`access`) and bounded in size
//! (`body`), and becomes a call of the coordinator. Every failure is answered as an
//! [`ApiError`](executr_api::ApiError) in JSON.
//!
//! What may not live here: decisions about jobs. Those are the coordinator's, for callers in its own process too.

mod access;
mod app;
mod body;
mod connection;
mod error;
mod failure;
mod gate;
mod input;
mod metrics;
mod openapi;
mod options;
mod routes;
mod serve;
mod tls;

pub use error::ServerError;
pub use metrics::Metrics;
pub use openapi::document as openapi_document;
pub use options::{Limits, ServerOptions, TlsFiles};
pub use serve::serve;
