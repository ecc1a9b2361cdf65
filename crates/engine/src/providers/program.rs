//! Programs that print variables, run by the worker itself and not in a sandbox: their operator has allowed them.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use executr_spec::workflow::SopsFormat;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, prlimit};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::assignments::{self, Style};
use super::{Asking, MOST};
use crate::environment::OURS;
use crate::host::Inherit;

/// How long a program may take: all jobs of its run wait for it.
const LONGEST: Duration = Duration::from_secs(120);
/// How many files a program may have open, unless it raises that itself. The worker has more, and there are programs that
/// look through all files they may have open, and ones that use `select`.
const OPEN_FILES: u64 = 1_024;
/// How many bytes of what a program says to standard error is told when it fails.
const TOLD: usize = 300;

/// A program and what it started, unless that left its process group. Dropped, all of it is ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Mostly nothing is left of it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a program; gives what it prints. Dropped, the program is ended, and so is what it leaves behind at its end.
pub(super) async fn run(argv: &[String], asking: Asking<'_>) -> Result<String, String> {
    run_within(LONGEST, argv, asking).await
}

async fn run_within(longest: Duration, argv: &[String], asking: Asking<'_>) -> Result<String, String> {
    let ended = tokio::time::timeout(longest, run_freely(argv, asking)).await;
    ended.unwrap_or_else(|_| {
        let seconds = longest.as_secs();
        Err(format!("took longer than {seconds} s, the most a source of variables may take; it was ended"))
    })
}

async fn run_freely(argv: &[String], asking: Asking<'_>) -> Result<String, String> {
    let Some((program, arguments)) = argv.split_first() else { return Err("names no program".to_owned()) };
    // Started in the repository, a path with a slash counts from there.
    let directory = asking.root.directory();
    let path = match directory {
        Some(directory) if program.contains('/') => directory.join(program),
        _ => program.into(),
    };
    let mut command = Command::new(path);
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).process_group(0);
    for (name, value) in &asking.host.variables {
        // Among ours are the worker's own secrets.
        if asking.policy.inherit == Inherit::All || !name.as_bytes().starts_with(OURS) {
            command.env(name, value);
        }
    }
    command.current_dir(directory.unwrap_or(Path::new("/")));
    let mut process = command.spawn().map_err(|error| format!("cannot start `{program}`: {error}"))?;
    let group = Group(process.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    limit_open_files(group.0);
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let ended = async {
        let status = process.wait().await;
        // What it left behind may hold its output open for ever.
        drop(group);
        status
    };
    let (printed, said, status) =
        tokio::try_join!(gather(stdout, MOST + 1), gather(stderr, MOST), ended).map_err(|error| error.to_string())?;
    if printed.len() as u64 > MOST {
        return Err(format!("prints more than {MOST} bytes"));
    }
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let told = last_lines(&said);
        let separator = if told.is_empty() { "" } else { ": " };
        return Err(format!("ended with {status}{separator}{told}"));
    }
    String::from_utf8(printed).map_err(|_| "prints something that is no UTF-8 text".to_owned())
}

/// Set from outside, just after the start: within, it would cost a fork of the whole worker.
fn limit_open_files(program: Option<Pid>) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = Some(current.map_or(OPEN_FILES, |current| current.min(OPEN_FILES)));
    if let Some(Err(error)) = program.map(|pid| prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum })) {
        tracing::debug!(%error, "a source of variables has the worker's limit on open files");
    }
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
    use std::io::Read as _;

    use rustix::process::setrlimit;

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

    async fn shell(longest: Duration, script: &str) -> Result<String, String> {
        let host = crate::HostContext::default();
        let asking = Asking { host: &host, policy: &crate::Policy::default(), root: super::super::Root::Nothing };
        run_within(longest, &["/bin/sh", "-c", script].map(str::to_owned), asking).await
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_is_not_waited_for() {
        assert_eq!(shell(LONGEST, "sleep 1000 & echo said").await.as_deref(), Ok("said\n"));
    }

    #[tokio::test]
    async fn a_program_may_not_take_for_ever() {
        let error = shell(Duration::from_millis(1), "sleep 1000").await.unwrap_err();
        assert!(error.contains("took longer than 0 s"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_nobody_waits_for_is_ended_with_all_it_started() {
        let temp = tempfile::tempdir().unwrap();
        let fifo = temp.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let script = format!("exec 3>{}; echo x >&3; sleep 1000 | sleep 1000", fifo.display());
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (ended, have_ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut held = std::fs::File::open(fifo).unwrap();
            held.read_exact(&mut [0]).unwrap();
            started.send(()).unwrap();
            held.read_to_end(&mut Vec::new()).unwrap();
            ended.send(()).unwrap();
        });
        tokio::select! {
            ended = shell(LONGEST, &script) => panic!("{ended:?}"),
            started = has_started => started.unwrap(),
        }
        let have_ended = tokio::time::timeout(Duration::from_secs(60), have_ended).await;
        have_ended.expect("none of them holds it any more").unwrap();
    }

    #[tokio::test]
    async fn a_program_does_not_get_the_workers_limit_on_open_files() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
        let most = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
        let script = format!("until [ $(ulimit -Sn) = {most} ]; do :; done");
        assert_eq!(shell(LONGEST, &script).await.as_deref(), Ok(""));
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
