//! Programs that print variables, run by the worker itself and not in a sandbox: their operator has allowed them.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use executr_spec::workflow::SopsFormat;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::assignments::{self, Style};
use super::{Asking, MOST};
use crate::environment::OURS;
use crate::host::Inherit;

/// How many bytes of what a program says to standard error is told when it fails.
const TOLD: usize = 300;

/// Runs a program; gives what it prints. Dropped, the program is ended.
pub(super) async fn run(argv: &[String], asking: Asking<'_>) -> Result<String, String> {
    let Some((program, arguments)) = argv.split_first() else { return Err("names no program".to_owned()) };
    // Started in the repository, a path with a slash counts from there.
    let directory = asking.root.directory();
    let path = match directory {
        Some(directory) if program.contains('/') => directory.join(program),
        _ => program.into(),
    };
    let mut command = Command::new(path);
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    for (name, value) in &asking.host.variables {
        // Among ours are the worker's own secrets.
        if asking.policy.inherit == Inherit::All || !name.as_bytes().starts_with(OURS) {
            command.env(name, value);
        }
    }
    command.current_dir(directory.unwrap_or(Path::new("/")));
    let mut process = command.spawn().map_err(|error| format!("cannot start `{program}`: {error}"))?;
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let (printed, said) =
        tokio::try_join!(gather(stdout, MOST + 1), gather(stderr, MOST)).map_err(|e| e.to_string())?;
    if printed.len() as u64 > MOST {
        return Err(format!("prints more than {MOST} bytes"));
    }
    let status = process.wait().await.map_err(|error| error.to_string())?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let told = last_lines(&said);
        let separator = if told.is_empty() { "" } else { ": " };
        return Err(format!("ended with {status}{separator}{told}"));
    }
    String::from_utf8(printed).map_err(|_| "prints something that is no UTF-8 text".to_owned())
}

/// The last lines of what a program said, whole ones only: a value that is cut couldn't be masked.
fn last_lines(said: &str) -> &str {
    let said = said.trim();
    let mut start = said.len();
    for (at, _) in said.rmatch_indices('\n').chain([(0, "")]) {
        if said.len() - at > TOLD {
            break;
        }
        start = at;
    }
    said[start..].trim_start()
}

/// Reads to the end, keeping the first `most` bytes.
async fn gather(stream: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut gathered = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(most).read_to_end(&mut gathered).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    Ok(gathered)
}

/// Has `sops` decrypt a file.
pub(super) async fn sops(
    file: &Path,
    format: SopsFormat,
    asking: Asking<'_>,
) -> Result<BTreeMap<String, String>, String> {
    // What isn't lines already is asked for as JSON: one structure to read, whatever the file is.
    let (input, output) = match format {
        SopsFormat::Yaml => ("yaml", "json"),
        SopsFormat::Json => ("json", "json"),
        SopsFormat::Dotenv => ("dotenv", "dotenv"),
    };
    let argv = ["sops", "--decrypt", "--input-type", input, "--output-type", output, &file.to_string_lossy()];
    let printed = run(&argv.map(str::to_owned), asking).await?;
    if format == SopsFormat::Dotenv {
        return assignments::parse(&printed, Style::DotEnv);
    }
    let value: Value = serde_json::from_str(&printed).map_err(|_| "`sops` printed no JSON".to_owned())?;
    let mut variables = BTreeMap::new();
    flatten(String::new(), &value, &mut variables);
    // No environment holds such.
    let is_name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
    if let Some((name, _)) = variables.iter().find(|(name, value)| !is_name(name) || value.contains('\0')) {
        return Err(format!("`{}` can't be a variable: a name or value holds what none can", name.escape_debug()));
    }
    Ok(variables)
}

/// Nested keys are joined by `_`.
fn flatten(name: String, value: &Value, variables: &mut BTreeMap<String, String>) {
    let inner = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}_{key}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| flatten(inner(key), value, variables)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| flatten(inner(&at.to_string()), value, variables));
        }
        Value::String(text) => drop(variables.insert(name, text.clone())),
        Value::Null => drop(variables.insert(name, String::new())),
        Value::Bool(_) | Value::Number(_) => drop(variables.insert(name, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_told() {
        assert_eq!(last_lines("no key\n"), "no key");
        assert_eq!(last_lines(&"x".repeat(TOLD)).len(), TOLD);
        assert_eq!(last_lines(&"x".repeat(TOLD + 1)), "");
        let long = format!("{}\nsecond\nlast\n", "x".repeat(TOLD));
        assert_eq!(last_lines(&long), "second\nlast");
        assert_eq!(last_lines(""), "");
    }

    #[test]
    fn nested_keys_are_joined() {
        let mut variables = BTreeMap::new();
        let value = serde_json::json!({"a": {"b": "x", "c": [1, true]}, "d": null});
        flatten(String::new(), &value, &mut variables);
        let found: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("a_b", "x"), ("a_c_0", "1"), ("a_c_1", "true"), ("d", "")]);
    }
}
