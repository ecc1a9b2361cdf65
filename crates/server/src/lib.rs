//! The coordinator over HTTP: REST, streams, metrics, authentication.
