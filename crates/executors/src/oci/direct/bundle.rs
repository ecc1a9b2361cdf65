//! A container as runtimes are told of it: `config.json`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{machine, seccomp};
use crate::oci::engine::{CAPABILITIES, ContainerPlan, Mount};
use crate::oci::options::Network;

/// What of /proc and /sys tells about the machine, or reaches it.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A host name's longest, by the kernel.
const HOST_NAME: usize = 64;

/// What is known of the machine and the container's directory.
pub(super) struct Surroundings<'a> {
    /// Its root, mounted when it is run.
    pub(super) root: &'a Path,
    /// Its `/etc/hosts`; none is put there without.
    pub(super) hosts: Option<&'a Path>,
    /// It is run in a user namespace.
    pub(super) is_rootless: bool,
}

/// The file.
pub(super) fn config(plan: &ContainerPlan, around: &Surroundings<'_>) -> Value {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if plan.network != Network::Host {
        namespaces.push("network");
    }
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    let capabilities: Vec<String> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    let host_name = if plan.network == Network::Host { None } else { plan.name.get(..plan.name.len().min(HOST_NAME)) };
    let secret = if plan.machine.is_some() { &machine::SECRET[..] } else { &[] };
    let masked: Vec<&str> = MASKED.iter().chain(secret).copied().collect();
    json!({
        "ociVersion": "1.0.2",
        "hostname": host_name.unwrap_or("executr"),
        "root": {"path": around.root, "readonly": plan.read_only},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": plan.command,
            "env": [],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": mounts(plan, around),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": masked,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp::filter(),
        },
    })
}

fn mounts(plan: &ContainerPlan, around: &Surroundings<'_>) -> Vec<Value> {
    let special = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let mut mounts = vec![
        special("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        special("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        special("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        special("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        special("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    mounts.push(if around.is_rootless && plan.network == Network::Host {
        // Only whoever owns a network may mount what tells about it.
        json!({"destination": "/sys", "type": "none", "source": "/sys",
               "options": ["rbind", "rro", "nosuid", "noexec", "nodev"]})
    } else {
        special("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
    });
    let covers = plan.machine.as_deref().map(machine::covers).unwrap_or_default();
    for (target, options) in covers {
        mounts.push(
            json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", options]}),
        );
    }
    for (target, options) in &plan.tmpfs {
        let given = options.split(',').filter(|option| !option.is_empty());
        let options: Vec<&str> = ["nosuid", "nodev"].into_iter().chain(given).collect();
        mounts.push(special(target, "tmpfs", &options));
    }
    let bind = |source: &Path, target: &Path, read_only: bool| {
        let way = if read_only { "ro" } else { "rw" };
        json!({"destination": target, "type": "none", "source": source, "options": ["bind", way, "nosuid", "nodev"]})
    };
    mounts.extend(around.hosts.map(|hosts| bind(hosts, Path::new("/etc/hosts"), true)));
    let names = match (plan.network, &plan.machine) {
        (Network::Host, None) => Some(PathBuf::from("/etc/resolv.conf")),
        (Network::Host, Some(_)) => machine::covered_names(),
        _ => None,
    };
    mounts.extend(names.filter(|names| names.exists()).map(|names| bind(&names, &names, true)));
    let mut own: Vec<&Mount> = plan.mounts.iter().collect();
    // One may lie in another: the outer first.
    own.sort_by_key(|mount| mount.target.components().count());
    mounts.extend(own.into_iter().map(|mount| bind(&mount.source, &mount.target, mount.read_only)));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(plan: &ContainerPlan, is_rootless: bool) -> Value {
        config(plan, &Surroundings { root: Path::new("/c/root"), hosts: Some(Path::new("/c/hosts")), is_rootless })
    }

    fn targets(config: &Value) -> Vec<&str> {
        config["mounts"].as_array().unwrap().iter().map(|mount| mount["destination"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_first_process_has_little_and_may_get_nothing() {
        let config = made(&ContainerPlan::default(), false);
        assert_eq!(config["process"]["noNewPrivileges"], true);
        let capabilities = &config["process"]["capabilities"];
        assert!(capabilities["inheritable"].is_null() && capabilities["ambient"].is_null());
        let bounding = capabilities["bounding"].as_array().unwrap();
        assert_eq!(bounding.len(), CAPABILITIES.len());
        for dangerous in ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_MKNOD", "CAP_NET_ADMIN"] {
            assert!(!bounding.iter().any(|capability| capability == dangerous));
        }
    }

    #[test]
    fn only_the_machines_network_is_shared_when_asked_for() {
        let namespaces = |network| {
            let config = made(&ContainerPlan { network, ..ContainerPlan::default() }, false);
            let kinds = config["linux"]["namespaces"].as_array().unwrap().clone();
            kinds.iter().map(|kind| kind["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(namespaces(Network::Host), ["pid", "ipc", "uts", "mount"]);
        assert_eq!(namespaces(Network::None), ["pid", "ipc", "uts", "mount", "network"]);
    }

    #[test]
    fn what_lies_in_another_mount_comes_after_it() {
        let mount = |path: &str| Mount { source: path.into(), target: path.into(), read_only: true };
        let plan = ContainerPlan {
            mounts: vec![mount("/a/b/c"), mount("/a")],
            tmpfs: vec![("/t".to_owned(), "size=1m".to_owned())],
            ..ContainerPlan::default()
        };
        let config = made(&plan, true);
        let targets = targets(&config);
        let place = |target| targets.iter().position(|found| *found == target).unwrap();
        assert!(place("/t") < place("/a") && place("/a") < place("/a/b/c"), "{targets:?}");
    }

    #[test]
    fn a_user_shows_the_machines_network_as_it_is() {
        let sys = |network, is_rootless| {
            let config = made(&ContainerPlan { network, ..ContainerPlan::default() }, is_rootless);
            let mounts = config["mounts"].as_array().unwrap().clone();
            mounts.into_iter().find(|mount| mount["destination"] == "/sys").unwrap()["source"].clone()
        };
        assert_eq!(sys(Network::Host, true), "/sys");
        assert_eq!(sys(Network::Host, false), "sysfs");
        assert_eq!(sys(Network::None, true), "sysfs");
    }
}
