//! graphile-worker, the job queue for Node.js on PostgreSQL.

use std::io;
use std::path::Path;
use std::process::Command;

/// No-op jobs a second through graphile-worker, submission included; `folder` holds its `node_modules`.
///
/// # Errors
/// When Node.js or the package is missing, or it fails.
pub fn no_op_jobs(folder: &Path, url: &str, jobs: u32, payload: usize) -> io::Result<f64> {
    let script = tempfile::Builder::new().suffix(".mjs").tempfile()?;
    std::fs::write(script.path(), include_str!("graphile.mjs"))?;
    let output = Command::new("node")
        .arg(script.path())
        .args([url, &jobs.to_string(), &payload.to_string()])
        .arg(std::fs::canonicalize(folder)?)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value: serde_json::Value = serde_json::from_str(text.trim()).map_err(|_| {
        io::Error::other(format!("graphile-worker failed: {}{}", text, String::from_utf8_lossy(&output.stderr)))
    })?;
    value["jobs_per_second"].as_f64().ok_or_else(|| io::ErrorKind::InvalidData.into())
}
