//! The agent for containers: within this program where it was built for others, beside it in the target directory where it
//! was built for its developer.

use std::path::{Path, PathBuf};

/// Where the agent is, unpacked into a directory of `data` that is named by its digest.
///
/// # Errors
/// With what to do.
#[cfg(executr_agent)]
pub(crate) fn program(data: &Path) -> Result<PathBuf, String> {
    use std::fs;
    use std::io::{self, Write as _};
    use std::os::unix::fs::OpenOptionsExt as _;

    static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent.zst"));

    let agent = zstd::decode_all(PACKED).map_err(|error| format!("this program is damaged: {error}"))?;
    let digest = executr_spec::Digest::of(&agent);
    let directory = data.join("agent").join(digest.to_string());
    let path = directory.join("executr-agent");
    // Whatever else stands there isn't what this program speaks to.
    if fs::read(&path).is_ok_and(|found| found == agent) {
        return Ok(path);
    }
    let write = || -> io::Result<()> {
        fs::create_dir_all(&directory)?;
        let part = directory.join(format!("part-{}", std::process::id()));
        drop(fs::remove_file(&part));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&part)?;
        file.write_all(&agent)?;
        // Closed first: a program that is open for writing can't be executed.
        drop(file);
        fs::rename(part, &path)
    };
    write().map_err(|error| format!("it can't be written to {}: {error}", path.display()))?;
    Ok(path)
}

/// Where `scripts/build-agent` puts it in the target directory this program lies in.
///
/// # Errors
/// With what to do.
#[cfg(not(executr_agent))]
pub(crate) fn program(_data: &Path) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = own.ancestors().nth(2).unwrap_or(Path::new("/"));
    let built = format!("{}-unknown-linux-gnu/agent/executr-agent", std::env::consts::ARCH);
    let path = target.join(built);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "this is a debug build and {} isn't there; run scripts/build-agent, or build executr with --release",
        path.display()
    ))
}
