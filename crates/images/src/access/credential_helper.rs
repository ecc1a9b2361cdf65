//! Programs that keep credentials: `docker-credential-NAME get`, a registry in, an object out.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{AccessError, Login};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What such a program says about a registry; `None` when it knows nothing.
pub(super) fn ask(name: &str, config: &Path, registry: &str) -> Result<Option<Login>, AccessError> {
    let failed = |why: String| AccessError::Helper {
        name: name.to_owned(),
        path: config.to_owned(),
        registry: registry.to_owned(),
        why,
    };
    if name.contains('/') {
        return Err(failed("is a path, not a name".to_owned()));
    }
    let mut helper = Command::new(format!("docker-credential-{name}"));
    helper.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut helper = helper.spawn().map_err(|error| failed(format!("can't be run: {error}")))?;
    if let Some(mut stdin) = helper.stdin.take() {
        // One that reads nothing may answer all the same.
        let _ = writeln!(stdin, "{registry}");
    }
    let ended = helper.wait_with_output().map_err(|error| failed(format!("can't be waited for: {error}")))?;
    if !ended.status.success() {
        // The protocol: it says so on standard output and fails.
        let said = String::from_utf8_lossy(&ended.stdout);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let said = if said.trim().is_empty() { String::from_utf8_lossy(&ended.stderr) } else { said };
        return Err(failed(format!("failed: {}", said.trim())));
    }
    let answer: Answer =
        serde_json::from_slice(&ended.stdout).map_err(|_| failed("gave no answer that is understood".to_owned()))?;
    Ok(Some(match answer {
        Answer { username, secret } if username == "<token>" => Login::IdentityToken(secret),
        Answer { username, secret } => Login::Password { username, password: secret },
    }))
}
