//! What no process in a container may ask of the kernel, in the form runtimes take it.
//!
//! A list of what is forbidden: it is compiled anew for each container, and one of all that is allowed takes longer than
//! all the rest of a start. Steps have no capabilities either, so what is here is what works without them, what has a
//! history of not being kept from those who lack them, and what reaches out of namespaces.

use serde_json::{Value, json};

/// Nobody in a container needs them, and none is safe in everybody's hands.
const FORBIDDEN: [&str; 75] = [
    // Mounts and roots.
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "mount_setattr",
    "statmount",
    "listmount",
    "setns",
    "open_by_handle_at",
    "quotactl",
    "quotactl_fd",
    "swapon",
    "swapoff",
    "fanotify_init",
    "fanotify_mark",
    // Other processes.
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "process_mrelease",
    "kcmp",
    "pidfd_getfd",
    "move_pages",
    "migrate_pages",
    "acct",
    // The kernel itself.
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "create_module",
    "query_module",
    "get_kernel_syms",
    "reboot",
    "syslog",
    "uselib",
    "_sysctl",
    "sysfs",
    "ustat",
    "nfsservctl",
    "lookup_dcookie",
    "vhangup",
    "vm86",
    "vm86old",
    "iopl",
    "ioperm",
    "modify_ldt",
    "lsm_set_self_attr",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "mbind",
    "get_mempolicy",
    // Keys, which have no namespaces.
    "keyctl",
    "add_key",
    "request_key",
    // The clock, which is the machine's.
    "settimeofday",
    "stime",
    "clock_settime",
    "clock_settime64",
    "clock_adjtime",
    "clock_adjtime64",
    "adjtimex",
];

/// `CLONE_NEWUSER`: a namespace of its own would give a process all capabilities in it.
const NEW_USER_NAMESPACE: u64 = 0x1000_0000;
/// Taking hold of a process that didn't ask for it: `PTRACE_ATTACH`, `PTRACE_SEIZE`.
const TAKING_HOLD: [u64; 2] = [16, 0x4206];
/// Sockets to a virtual machine's host, which network namespaces don't keep apart.
const AF_VSOCK: u64 = 40;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The filter, as `linux.seccomp` has it.
pub(super) fn filter() -> Value {
    let architectures = match std::env::consts::ARCH {
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        // Programs of 32 bits are filtered likewise; those of any other kind are killed.
        _ => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
    };
    let masked = |call: &str| {
        forbid(
            &[call],
            Some(
                json!({"index": 0, "value": NEW_USER_NAMESPACE, "valueTwo": NEW_USER_NAMESPACE, "op": "SCMP_CMP_MASKED_EQ"}),
            ),
        )
    };
    let equal =
        |call: &str, value: u64| forbid(&[call], Some(json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"})));
    let mut calls = vec![forbid(&FORBIDDEN, None), masked("clone"), masked("unshare"), equal("socket", AF_VSOCK)];
    calls.extend(TAKING_HOLD.map(|request| equal("ptrace", request)));
    // Its flags are in memory, where no filter looks: C libraries take `clone` where this isn't there.
    calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": calls})
}

fn forbid(names: &[&str], argument: Option<Value>) -> Value {
    let arguments: Vec<Value> = argument.into_iter().collect();
    json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": arguments})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_named_once() {
        let mut names = FORBIDDEN.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FORBIDDEN.len());
    }
}
