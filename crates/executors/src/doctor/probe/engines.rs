//! Asks the container engines, and looks for what Podman needs.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bollard::Docker;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::machine::{find, version};
use super::{PATIENCE, Surroundings};
use crate::doctor::facts::{
    Containers, ContainersConf, Engine, EngineKind, NoAnswer, NoUserNamespaces, Podman, Socket,
};

pub(super) async fn probe(surroundings: &Surroundings) -> Containers {
    let address = surroundings.docker_host.clone().filter(|address| !address.is_empty());
    let paths = match &address {
        Some(address) => named(address).into_iter().collect(),
        None => surroundings.sockets.clone(),
    };
    let mut sockets = Vec::new();
    for path in paths {
        let asked = timeout(PATIENCE, ask(&path)).await;
        sockets.push(Socket { answer: asked.unwrap_or(Err(NoAnswer::Silent)), path });
    }
    Containers {
        address,
        sockets,
        agent: surroundings.agent.clone().map(drop),
        podman: podman(surroundings).await,
        no_user_namespaces: no_user_namespaces(),
        overlay: fs::read_to_string("/proc/filesystems")
            .is_ok_and(|text| text.lines().any(|line| line.ends_with("\toverlay"))),
    }
}

/// The socket an address names, if it names one of this machine.
fn named(address: &str) -> Option<PathBuf> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    path.starts_with('/').then(|| path.into())
}

async fn ask(path: &Path) -> Result<Engine, NoAnswer> {
    // What the system says is told apart here: the client tells it as one error.
    drop(UnixStream::connect(path).await.map_err(|error| no_answer(path, &error))?);
    let failed = |error: bollard::errors::Error| NoAnswer::Failed(error.to_string());
    let address = path.to_str().ok_or_else(|| NoAnswer::Failed("its path is no text".to_owned()))?;
    let client =
        Docker::connect_with_unix(address, PATIENCE.as_secs(), bollard::API_DEFAULT_VERSION).map_err(failed)?;
    let client = client.negotiate_version().await.map_err(failed)?;
    let version = client.version().await.map_err(failed)?;
    let info = client.info().await.map_err(failed)?;
    let components = version.components.unwrap_or_default();
    let is_podman = components.iter().any(|component| component.name.starts_with("Podman"));
    let security = info.security_options.unwrap_or_default();
    Ok(Engine {
        kind: if is_podman { EngineKind::Podman } else { EngineKind::Docker },
        version: version.version.unwrap_or_default(),
        api: version.api_version.unwrap_or_default(),
        cgroup_driver: info.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
        // Engines older than version 2 don't say.
        cgroup_version: info.cgroup_version.map_or_else(|| "1".to_owned(), |version| version.to_string()),
        storage: info.driver.unwrap_or_default(),
        runtime: info.default_runtime.unwrap_or_default(),
        rootless: security.iter().any(|option| option.contains("rootless")),
    })
}

fn no_answer(path: &Path, error: &io::Error) -> NoAnswer {
    match error.kind() {
        io::ErrorKind::NotFound => NoAnswer::Missing,
        io::ErrorKind::PermissionDenied => NoAnswer::Denied { group: group_of(path) },
        io::ErrorKind::ConnectionRefused => NoAnswer::Deserted,
        _ => NoAnswer::Failed(error.to_string()),
    }
}

/// The name of the group a file is of.
fn group_of(path: &Path) -> Option<String> {
    let number = fs::metadata(path).ok()?.gid().to_string();
    name_of(&fs::read_to_string("/etc/group").ok()?, &number)
}

/// A line is `name:password:number:members`.
fn name_of(groups: &str, number: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}

async fn podman(surroundings: &Surroundings) -> Option<Podman> {
    let path: &OsStr = &surroundings.path;
    let version = version(path, "podman").await?;
    let conf = surroundings.containers_conf.as_ref().and_then(|path| fs::read_to_string(path).ok());
    // Podman keeps them where no PATH leads.
    let beside = |program: &str| {
        ["/usr/lib/podman", "/usr/libexec/podman", "/usr/local/lib/podman"]
            .iter()
            .any(|folder| Path::new(folder).join(program).exists())
            || find(path, program).is_some()
    };
    Some(Podman {
        version,
        settled: conf.map(|text| ContainersConf::read(&text)).unwrap_or_default(),
        names_on_networks: beside("netavark") && beside("aardvark-dns"),
        id_maps: find(path, "newuidmap").is_some() && find(path, "newgidmap").is_some(),
        sub_ids: has_sub_ids(rustix::process::geteuid().as_raw()),
        user_network: find(path, "slirp4netns").is_some() || find(path, "pasta").is_some(),
    })
}

/// Whether `/etc/subuid` has a line for a user, by name or by number.
fn has_sub_ids(user: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let number = user.to_string();
    let name = name_of(&read("/etc/passwd"), &number);
    let lists = |text: &str| {
        text.lines()
            .filter_map(|line| line.split(':').next())
            .any(|owner| owner == number || Some(owner) == name.as_deref())
    };
    lists(&read("/etc/subuid")) && lists(&read("/etc/subgid"))
}

fn no_user_namespaces() -> Option<NoUserNamespaces> {
    let number = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse::<u64>().ok();
    if number("user/max_user_namespaces").unwrap_or(0) == 0 {
        return Some(NoUserNamespaces::None);
    }
    if number("kernel/unprivileged_userns_clone") == Some(0) {
        return Some(NoUserNamespaces::Debian);
    }
    (number("kernel/apparmor_restrict_unprivileged_userns") == Some(1)).then_some(NoUserNamespaces::AppArmor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_name_a_socket() {
        assert_eq!(named("unix:///run/x.sock"), Some("/run/x.sock".into()));
        assert_eq!(named("tcp://127.0.0.1:2375"), None);
        assert_eq!(name_of("root:x:0:\ndocker:x:998:ann\n", "998").as_deref(), Some("docker"));
        assert_eq!(name_of("docker:x:998:ann\n", "99"), None);
    }

    #[tokio::test]
    async fn why_nobody_answers_is_told_apart() {
        let temp = tempfile::tempdir().expect("a directory");
        let socket = temp.path().join("s");
        assert_eq!(ask(&socket).await, Err(NoAnswer::Missing));
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
        assert_eq!(ask(&socket).await, Err(NoAnswer::Deserted));
    }
}
