//! Jobs in directories of this machine.

use super::Finding;
use super::facts::{CgroupMounts, Local, Machine};

pub(super) fn findings(machine: &Machine, local: &Local) -> Vec<Finding> {
    let offers = match &local.step {
        Ok(offers) => offers,
        Err(problem) => {
            return vec![Finding::broken(
                "steps",
                format!("a step can't be run: {problem}"),
                "jobs run here unless told otherwise: see to what stands above first, then to what is said here",
            )];
        }
    };
    let mut found =
        vec![Finding::ok("steps", "a step was run"), Finding::ok("control groups", mounts(machine.cgroups))];
    let limits = [("memory limit", &offers.memory), ("cpu limit", &offers.cpu), ("pids limit", &offers.pids)];
    for (subject, refusal) in limits {
        found.push(match refusal {
            Ok(()) => Finding::ok(subject, "can be kept"),
            Err(refusal) => {
                // Keepers say what to do behind what is wrong.
                let (wrong, advice) = refusal.split_once("; ").unwrap_or((refusal, remedy(machine.cgroups)));
                Finding::lacks(subject, format!("can't be kept: {wrong}"), advice)
            }
        });
    }
    found.push(if local.group {
        Finding::ok("ending jobs", "at once, by control group")
    } else {
        Finding::lacks(
            "ending jobs",
            "process by process: complete, but a fork bomb may outrun it for a while",
            "let this user make control groups (systemd: Delegate=yes; in a container: a writable /sys/fs/cgroup)",
        )
    });
    found
}

fn mounts(mounts: CgroupMounts) -> &'static str {
    match mounts {
        CgroupMounts::None => "none are mounted",
        CgroupMounts::V1 => "version 1",
        CgroupMounts::Hybrid => "hybrid: version 1 for the controllers, version 2 beside it",
        CgroupMounts::V2 => "version 2",
    }
}

fn remedy(mounts: CgroupMounts) -> &'static str {
    match mounts {
        CgroupMounts::None => "mount control groups: `mount -t cgroup2 none /sys/fs/cgroup`",
        CgroupMounts::V1 | CgroupMounts::Hybrid => {
            "mount that controller of version 1, or start the machine with systemd.unified_cgroup_hierarchy=1"
        }
        CgroupMounts::V2 => "delegate the controller to this user (systemd: Delegate=yes)",
    }
}
