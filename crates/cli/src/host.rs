//! What this process finds around itself: its environment, its home, its own program. Captured here and handed on, so that
//! no library looks for itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use executr_api::failpoint::{self, Failpoint};

use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::limit_open_files;

/// The word that makes this program a keeper, known to nobody but itself.
pub(crate) const KEEPER: &str = "keeper";

/// Where data is kept unless told otherwise: `executr` in `$XDG_STATE_HOME`, else in `~/.local/state`.
pub(crate) fn state_directory() -> Result<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    state.map(|state| state.join("executr")).ok_or_else(|| {
        Failure::new(Exit::USAGE, "there is no home directory to keep data in")
            .remedy("name a directory with --data-dir")
    })
}

/// The container engine its user has chosen.
pub(crate) fn engine_address() -> Option<String> {
    std::env::var("DOCKER_HOST").ok()
}

/// Where container engines listen as a rule: the system's, then the user's own.
pub(crate) fn engine_sockets() -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let places: Vec<_> = [Some(PathBuf::from("/run")), own].into_iter().flatten().collect();
    let named = |name| places.iter().map(move |place| place.join(name));
    named("docker.sock").chain(named("podman/podman.sock")).collect()
}

/// Where programs are looked for that aren't named by a path; those of the system in any case, which a user's own list may lack.
pub(crate) fn program_directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    std::env::split_paths(&path).filter(|path| path.is_absolute()).chain(system.map(PathBuf::from)).collect()
}

/// What `docker login` and `podman login` have written for this user, the latter's first.
pub(crate) fn registry_logins() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = std::env::home_dir();
    let podman =
        variable("REGISTRY_AUTH_FILE").or_else(|| Some(variable("XDG_RUNTIME_DIR")?.join("containers/auth.json")));
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker"))).map(|path| path.join("config.json"));
    podman.into_iter().chain(docker).collect()
}

/// A variable's value, if it is text.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What stands in for registries, where no flag says it: `EXECUTR_REGISTRY_MIRROR`.
pub(crate) fn registry_mirrors() -> Vec<String> {
    let said = std::env::var("EXECUTR_REGISTRY_MIRROR").unwrap_or_default();
    said.split(',').filter(|mirror| !mirror.is_empty()).map(str::to_owned).collect()
}

/// The whole environment.
pub(crate) fn variables() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

/// The environment without what is this program's own: secrets may be among that.
pub(crate) fn variables_but_ours() -> BTreeMap<OsString, OsString> {
    let is_ours = |name: &OsString| name.as_encoded_bytes().starts_with(b"EXECUTR_");
    std::env::vars_os().filter(|(name, _)| !is_ours(name)).collect()
}

/// Is a keeper until its worker is gone. The argument behind the word, if any, says how many open files its jobs may have.
pub(crate) fn be_keeper() -> ExitCode {
    let most = std::env::args_os().nth(2).and_then(|most| most.to_str()?.parse().ok());
    if let Some(Err(error)) = most.map(limit_open_files) {
        drop(writeln!(io::stderr(), "executr keeper: cannot limit open files: {error}"));
        return ExitCode::FAILURE;
    }
    // SAFETY: descriptor 0 is the socket a worker hands over, and a keeper uses it for nothing else.
    let control = unsafe { OwnedFd::from_raw_fd(0) };
    match executr_agent::keeper::run(control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Where even that can't be said the exit code must do.
            drop(writeln!(io::stderr(), "executr keeper: {fault}"));
            ExitCode::FAILURE
        }
    }
}

/// Arms the point at which a test wants this process to die.
pub(crate) fn arm_failpoint() -> Result<()> {
    let Some(text) = std::env::var_os("EXECUTR_FAILPOINT").filter(|text| !text.is_empty()) else { return Ok(()) };
    let point: Failpoint =
        text.to_string_lossy().parse().map_err(|error| Failure::usage(format!("EXECUTR_FAILPOINT: {error}")))?;
    failpoint::arm(point);
    Ok(())
}
