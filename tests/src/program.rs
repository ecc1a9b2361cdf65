//! The programs under test and beside it: `executr` itself, and the API tester.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{component, run};

/// The `executr` program, built from the sources as they are now, in the profile of the running test.
///
/// # Panics
///
/// With the compiler's output when it does not compile.
#[must_use]
pub fn executr() -> PathBuf {
    built("executr-cli", "executr")
}

/// The agent as a program of its own: a keeper for tests below the command.
///
/// # Panics
///
/// With the compiler's output when it does not compile.
#[must_use]
pub fn agent() -> PathBuf {
    built("executr-agent", "executr-agent")
}

/// The agent that goes into containers: static, built by `scripts/build-agent` in the target directory.
///
/// # Panics
///
/// With the compiler's output when it does not compile.
#[must_use]
pub fn contained_agent() -> PathBuf {
    let profile_directory = profile_directory();
    let target_directory = profile_directory.parent().expect("target/PROFILE");
    let machine = std::env::consts::ARCH;
    let program = target_directory.join(format!("{machine}-unknown-linux-gnu/agent/executr-agent"));
    let (_, _lock) = run::locked_directory(target_directory);
    let built = target_directory.join("contained-agent-built-by");
    let run = run::id();
    if fs::read_to_string(&built).is_ok_and(|by| by == run) && program.is_file() {
        return program;
    }
    let mut script = cleaned(Command::new(root().join("scripts/build-agent")));
    let output = script.arg(target_directory).env("CARGO", env!("CARGO")).stdin(Stdio::null()).output();
    let output = output.expect("a script of ours starts");
    assert!(output.status.success(), "the agent does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::write(&built, run).expect("the target directory is writable");
    program
}

/// Cargo makes a program for the integration tests of its own package only, so the first test of a run that asks for
/// it builds it; the others wait and find it.
fn built(package: &str, binary: &str) -> PathBuf {
    let profile_directory = profile_directory();
    let program = profile_directory.join(binary);
    let target_directory = profile_directory.parent().expect("target/PROFILE");
    let (_, _lock) = run::locked_directory(target_directory);
    let built = target_directory.join(format!("{binary}-built-by"));
    let run = run::id();
    if fs::read_to_string(&built).is_ok_and(|by| by == run) && program.is_file() {
        return program;
    }
    let output = cargo()
        .args(["build", "--package", package, "--bin", binary, "--target-dir"])
        .arg(target_directory)
        .args(if profile_directory.ends_with("release") { &["--release"][..] } else { &[] })
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .expect("cargo runs these tests, so it can be started");
    assert!(output.status.success(), "{binary} does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::write(&built, run).expect("the target directory is writable");
    program
}

fn cargo() -> Command {
    cleaned(Command::new(env!("CARGO")))
}

/// A command with the environment a shell would give it. The runner of this test has described the test's own package in
/// variables; build scripts of dependencies that look at those would run again, and all that depends on them with them.
fn cleaned(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let of_this_test = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "NEXTEST"].iter().any(|start| name.starts_with(start))
                || ["CARGO", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "LD_LIBRARY_PATH", "OUT_DIR"].contains(&name)
        });
        if of_this_test {
            command.env_remove(name);
        }
    }
    command
}

/// The API tester `scripts/setup` installs, or `None` (after saying so) without it.
///
/// # Panics
///
/// If it is missing under `CI=true`.
#[must_use]
pub fn schemathesis() -> Option<PathBuf> {
    let target_directory = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let program = target_directory.join("tools/schemathesis/bin/schemathesis");
    if program.is_file() {
        return Some(program);
    }
    component::missing("schemathesis", "it is not in target/tools");
    None
}

/// Whether sandboxes of bubblewrap can be made here; says so where not.
///
/// # Panics
///
/// If they can't under `CI=true`.
#[must_use]
pub fn bubblewrap() -> bool {
    let tried = Command::new("bwrap").args(["--ro-bind", "/", "/", "--unshare-pid", "true"]).output();
    let problem = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    component::missing("bubblewrap", &problem);
    false
}

/// The workspace's root.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root")
}

/// `target/PROFILE` of the running test, which is `target/PROFILE/deps/NAME`.
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().expect("deps lies in target/PROFILE") } else { folder };
    folder.to_owned()
}
