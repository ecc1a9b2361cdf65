//! Jobs in containers of Docker or Podman.

use std::path::Path;

use super::facts::{
    CgroupMounts, Containers, ContainersConf, Engine, EngineKind, Machine, NoAnswer, NoUserNamespaces, Podman, Socket,
};
use super::{Finding, Standing};

pub(super) fn findings(machine: &Machine, containers: &Containers) -> Vec<Finding> {
    let answering = containers.sockets.iter().find_map(|socket| Some((socket, socket.answer.as_ref().ok()?)));
    let mut found = match answering {
        Some((socket, engine)) => engine_findings(machine, containers, socket, engine),
        None => vec![no_engine(machine, containers)],
    };
    let is_podman = answering.is_none_or(|(_, engine)| engine.kind == EngineKind::Podman);
    if let Some(podman) = containers.podman.as_ref().filter(|_| is_podman) {
        let rootless = answering.map_or(machine.user != 0, |(_, engine)| engine.rootless);
        found.extend(podman_findings(machine, podman, rootless));
    }
    found.push(agent(&containers.agent));
    found.extend(kernel(machine, containers));
    if containers.address.is_none() {
        return found;
    }
    // Somebody has said that this engine is to be used.
    for finding in &mut found {
        if finding.standing == Standing::Lacks && ESSENTIAL.contains(&finding.subject) {
            finding.standing = Standing::Broken;
        }
    }
    found
}

/// Without these no container starts.
const ESSENTIAL: [&str; 6] = ["engine", "agent", "cgroup driver", "runtime", "ulimits", "events"];

fn engine_findings(machine: &Machine, containers: &Containers, socket: &Socket, engine: &Engine) -> Vec<Finding> {
    let Engine { kind, version, api, cgroup_driver, cgroup_version, storage, runtime, rootless } = engine;
    let name = name(*kind);
    let way = if *rootless { ", rootless" } else { "" };
    let at = socket.path.display();
    let mut found = vec![Finding::ok(
        "engine",
        format!("{name} {version}{way} at {at} (API {api}, {storage}, {cgroup_driver}, {runtime})"),
    )];
    if cgroup_driver == "systemd" && !machine.systemd {
        found.push(Finding::lacks(
            "cgroup driver",
            format!("{name} asks systemd for control groups, and systemd doesn't run here"),
            match kind {
                EngineKind::Docker => {
                    r#"write {"exec-opts": ["native.cgroupdriver=cgroupfs"]} to /etc/docker/daemon.json and restart it"#
                }
                EngineKind::Podman => {
                    "write cgroup_manager=\"cgroupfs\" below [engine] in the file of CONTAINERS_CONF, and restart its service"
                }
            },
        ));
    }
    if !rootless && runtime.contains("crun") && machine.cgroups == CgroupMounts::Hybrid {
        found.push(crun_on_hybrid());
    }
    found.push(if *rootless && cgroup_version == "1" {
        Finding::lacks(
            "limits",
            format!("{name} is rootless on control groups of version 1: cpus, memory and pids are ignored"),
            "start the machine with systemd.unified_cgroup_hierarchy=1, or use an engine that runs as root",
        )
    } else if cgroup_driver == "none" {
        Finding::lacks(
            "limits",
            format!("{name} has no control groups: cpus, memory and pids are ignored"),
            "use an engine that runs as root, or delegate control groups to this user",
        )
    } else {
        Finding::ok("limits", format!("by control groups of version {cgroup_version}"))
    });
    if !rootless && !machine.may_raise_limits {
        found.push(Finding::lacks(
            "privileges",
            "no CAP_SYS_RESOURCE here: engines can't start privileged containers (\"unable to apply caps\")",
            "nothing to do: Executr's containers don't ask for it",
        ));
    }
    if *rootless && containers.overlay && storage == "vfs" {
        found.push(Finding::lacks(
            "storage",
            format!("{name} copies each image whole (vfs), though the kernel has overlay"),
            "write driver=\"overlay\" below [storage] in ~/.config/containers/storage.conf, then `podman system reset`",
        ));
    }
    found
}

fn no_engine(machine: &Machine, containers: &Containers) -> Finding {
    let tried = |socket: &Socket| {
        let path = socket.path.display();
        match &socket.answer {
            Ok(_) => format!("{path} answers"),
            Err(NoAnswer::Missing) => format!("{path} isn't there"),
            Err(NoAnswer::Denied { .. }) => format!("{path}: permission denied"),
            Err(NoAnswer::Deserted) => format!("nobody listens at {path}"),
            Err(NoAnswer::Silent) => format!("{path} doesn't answer in time"),
            Err(NoAnswer::Failed(problem)) => format!("{path}: {problem}"),
        }
    };
    if let Some(address) = &containers.address
        && containers.sockets.is_empty()
    {
        return Finding::lacks(
            "engine",
            format!(
                "DOCKER_HOST={address} is no engine on this machine, and job directories are mounted into containers"
            ),
            "set DOCKER_HOST=unix:///PATH, or unset it to have the usual sockets tried",
        );
    }
    let told: Vec<_> = containers.sockets.iter().map(tried).collect();
    let says = match (&containers.address, told.is_empty()) {
        (Some(address), _) => format!("DOCKER_HOST={address}: {}", told.join("; ")),
        (None, true) => "no socket to try".to_owned(),
        (None, false) => format!("none answers: {}", told.join("; ")),
    };
    Finding::lacks("engine", says, remedy(machine, containers))
}

/// The most promising of the sockets decides what to do.
fn remedy(machine: &Machine, containers: &Containers) -> String {
    let denied = containers.sockets.iter().find_map(|socket| match &socket.answer {
        Err(NoAnswer::Denied { group }) => Some((socket.path.as_path(), group.as_deref())),
        _ => None,
    });
    if let Some((path, group)) = denied {
        let join = match group {
            Some("root") | None => format!("have root give this user access to {}", path.display()),
            Some(group) => {
                format!("`sudo usermod -aG {group} $USER` and log in again (members of that group are as good as root)")
            }
        };
        return format!("{join}, or use rootless Podman");
    }
    let there = containers.sockets.iter().find(|socket| !matches!(socket.answer, Err(NoAnswer::Missing)));
    if let Some(socket) = there {
        return format!("start the engine of {} again, and look at what it logs", socket.path.display());
    }
    match (&containers.podman, machine.user, machine.systemd) {
        (Some(_), 0, true) => "start Podman's service: `systemctl start podman.socket`".to_owned(),
        (Some(_), _, true) => "start Podman's service: `systemctl --user start podman.socket`".to_owned(),
        (Some(_), _, false) => {
            let path = containers.sockets.last().map_or(Path::new("/run/podman/podman.sock"), |socket| &socket.path);
            format!("start Podman's service: `podman system service --time 0 unix://{}`", path.display())
        }
        (None, ..) => {
            "install Docker (Debian: apt-get install docker.io) or Podman (podman), or set DOCKER_HOST=unix:///PATH"
                .to_owned()
        }
    }
}

fn podman_findings(machine: &Machine, podman: &Podman, rootless: bool) -> Vec<Finding> {
    let Podman { version, settled, names_on_networks, id_maps, sub_ids, user_network } = podman;
    let mut found = vec![Finding::ok("podman", version)];
    if rootless {
        if !id_maps || !sub_ids {
            found.push(Finding::lacks(
                "user numbers",
                if *id_maps { "this user has none to give away in /etc/subuid" } else { "newuidmap isn't there" },
                if *id_maps {
                    "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`, then `podman system migrate`"
                } else {
                    "install it (Debian: apt-get install uidmap)"
                },
            ));
        }
        if !user_network {
            found.push(Finding::lacks(
                "network",
                "neither slirp4netns nor pasta is there: only `network: none` and `host` work",
                "install one (Debian: apt-get install slirp4netns)",
            ));
        }
        return found;
    }
    found.extend(settings(machine, settled));
    if !names_on_networks {
        found.push(Finding::lacks(
            "names",
            "containers on a network of their own can't find each other by name",
            "install netavark and aardvark-dns, then `podman system reset`",
        ));
    }
    found
}

/// What Podman as root needs to be told where it may do less than it expects.
fn settings(machine: &Machine, settled: &ContainersConf) -> Vec<Finding> {
    const FILE: &str = "in the file that CONTAINERS_CONF names for Podman's service";
    let mut found = Vec::new();
    if !machine.may_raise_limits && !settled.ulimits {
        found.push(Finding::lacks(
            "ulimits",
            "no CAP_SYS_RESOURCE: Podman as root can't set the limits it sets by default, and starts no container",
            // Its API takes soft for hard and hard for soft.
            format!("write default_ulimits=[\"nofile=20000:20000\",\"nproc=4096:4096\"] below [containers] {FILE}"),
        ));
    }
    if !machine.systemd && settled.cgroup_manager.as_deref() != Some("cgroupfs") {
        found.push(Finding::lacks(
            "cgroup driver",
            "Podman asks systemd for control groups, and systemd doesn't run here",
            format!("write cgroup_manager=\"cgroupfs\" below [engine] {FILE}"),
        ));
    }
    if !machine.systemd && !matches!(settled.events_logger.as_deref(), Some("file" | "none")) {
        found.push(Finding::lacks(
            "events",
            "Podman writes events to systemd's journal, and there is none",
            format!("write events_logger=\"file\" below [engine] {FILE}"),
        ));
    }
    if machine.cgroups == CgroupMounts::Hybrid && settled.runtime.as_deref().is_none_or(|name| name.contains("crun")) {
        found.push(crun_on_hybrid());
    }
    found
}

fn crun_on_hybrid() -> Finding {
    Finding::lacks(
        "runtime",
        "crun as root refuses hybrid control groups (\"cgroups in hybrid mode not supported\")",
        "have the engine use runc (Podman: runtime=\"runc\" below [engine]), or start its service where \
         /sys/fs/cgroup/unified isn't mounted: `unshare -m --propagation private sh -c 'umount /sys/fs/cgroup/unified; \
         exec podman system service …'`",
    )
}

fn agent(agent: &Result<(), String>) -> Finding {
    match agent {
        Ok(()) => Finding::ok("agent", "there is one to put into containers"),
        Err(problem) => {
            let (wrong, advice) = problem.split_once("; ").unwrap_or((problem, "install executr anew"));
            Finding::lacks("agent", format!("none to put into containers: {wrong}"), advice)
        }
    }
}

fn kernel(machine: &Machine, containers: &Containers) -> Vec<Finding> {
    let mut found = Vec::new();
    found.push(match containers.no_user_namespaces {
        None => Finding::ok("user namespaces", "this user can make them"),
        // Root's engines do without.
        Some(_) if machine.user == 0 => Finding::ok("user namespaces", "off, and root's engines don't need them"),
        Some(NoUserNamespaces::None) => Finding::lacks(
            "user namespaces",
            "none can be made: no rootless engine works",
            "`sudo sysctl user.max_user_namespaces=15000`",
        ),
        Some(NoUserNamespaces::Debian) => Finding::lacks(
            "user namespaces",
            "only root can make them: no rootless engine works",
            "`sudo sysctl kernel.unprivileged_userns_clone=1`",
        ),
        Some(NoUserNamespaces::AppArmor) => Finding::lacks(
            "user namespaces",
            "AppArmor lets only known programs make them",
            "use the distribution's own packages of the engine, or \
             `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        ),
    });
    found.push(if containers.overlay {
        Finding::ok("overlay", "the kernel has it")
    } else {
        Finding::lacks(
            "overlay",
            "the kernel doesn't have it: engines copy each image whole for each container",
            "`sudo modprobe overlay`, or fuse-overlayfs for a rootless engine",
        )
    });
    found
}

fn name(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Docker => "Docker",
        EngineKind::Podman => "Podman",
    }
}
