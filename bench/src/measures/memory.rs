//! Memory of a server while a million jobs are submitted over HTTP.

use std::io;

use super::Settings;
use crate::http;
use crate::program::Server;
use crate::report::{Row, Target};

const JOBS: u32 = 1_000_000;
const MIB: f64 = 1024.0 * 1024.0;

/// The server's peak of resident memory in MiB, embedded store, beside the limit.
///
/// # Errors
/// When the program fails.
pub fn measure(_settings: &Settings) -> io::Result<Vec<Row>> {
    let server = Server::start(None, &[])?;
    http::runtime()?.block_on(async {
        let client = http::client(&server.url)?;
        http::submit_sized(&client, JOBS, 1_000, 300).await
    })?;
    Ok(vec![Row {
        measure: format!("server, {JOBS} jobs of 300 bytes submitted, peak"),
        ours: server.process.memory()?.peak as f64 / MIB,
        against: "limit".to_owned(),
        other: 150.0,
        unit: "MiB",
        target: Target::AtMost(1.0),
    }])
}
