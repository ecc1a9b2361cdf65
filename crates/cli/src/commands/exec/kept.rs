//! The same in the directory that a job left: nothing runs there any more, so the command takes this process's place.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use executr_worker::KeptNote;

use crate::errors::Failure;
use crate::exit::Exit;

/// What is run without a command: the first of these that there is.
const SHELLS: [&str; 3] = ["bash", "sh", "/bin/sh"];

/// Where the last attempt of a job left its directory, in the directory of its run.
pub(super) fn directory(run: &Path, job: &str) -> Option<PathBuf> {
    executr_worker::KeptDirectories::below(run.join("kept")).newest(job)
}

/// Runs the command in a directory that was kept, with what its job had as environment. Returns only when that fails.
pub(super) fn exec(directory: &Path, command: &[String]) -> Failure {
    let note = match KeptNote::of(directory) {
        Ok(note) => note,
        Err(error) => return Failure::doing(format!("read what was noted of {}", directory.display()), error),
    };
    let mut stderr = io::stderr();
    let (env, missing) = environment(&note, |name| std::env::var_os(name));
    if !missing.is_empty() {
        let missing = missing.join(", ");
        drop(writeln!(stderr, "executr: not kept, and not in your environment either: {missing}"));
    }
    if let Some(image) = &note.elsewhere {
        drop(writeln!(stderr, "executr: the job ran in {image}, which is gone; this runs on this machine"));
    }
    let shells = SHELLS.map(|shell| vec![shell.to_owned()]);
    let commands = if command.is_empty() { &shells[..] } else { &[command.to_vec()] };
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for words in commands {
        let Some((program, arguments)) = words.split_first() else { continue };
        let error = Command::new(program).args(arguments).current_dir(directory).env_clear().envs(&env).exec();
        let not_found = error.kind() == io::ErrorKind::NotFound;
        failed = error;
        if !not_found {
            break;
        }
    }
    let what = command.first().map_or("a shell", String::as_str);
    Failure::new(Exit::NO_RESULT, format!("the command can't be started: {what}: {failed}"))
}

/// What the job had, what of that wasn't kept taken from here, and what is then still missing.
fn environment(
    note: &KeptNote,
    here: impl Fn(&str) -> Option<OsString>,
) -> (BTreeMap<OsString, OsString>, Vec<String>) {
    let mut env: BTreeMap<OsString, OsString> =
        note.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let mut missing = Vec::new();
    for name in &note.left_out {
        match here(name) {
            Some(value) => drop(env.insert(name.into(), value)),
            None => missing.push(name.clone()),
        }
    }
    // As in any other terminal.
    if let Some(kind) = here("TERM") {
        env.insert("TERM".into(), kind);
    }
    (env, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_comes_from_here_or_is_told() {
        let note = KeptNote {
            env: [("A".to_owned(), "b".to_owned())].into(),
            left_out: vec!["TOKEN".to_owned(), "OTHER".to_owned()],
            elsewhere: None,
        };
        let (env, missing) = environment(&note, |name| (name == "TOKEN").then(|| "t".into()));
        assert_eq!(env, [("A".into(), "b".into()), ("TOKEN".into(), "t".into())].into());
        assert_eq!(missing, ["OTHER"]);
    }
}
