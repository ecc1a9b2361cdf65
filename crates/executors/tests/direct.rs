//! The conformance suite against `oci` without a daemon, in both modes, as whoever runs it and as a user who isn't root; and
//! what only that engine does.
//!
//! - `rig`: workspaces whose containers are made of a busybox in a directory;
//! - `isolation`: what a job tries and fails to do;
//! - `bounds`: what containers are bound by;
//! - `machine`: jobs in this machine's own files;
//! - `leftovers`: what is left, and who removes it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "direct/bounds.rs"]
mod bounds;
mod conformance;
#[path = "direct/isolation.rs"]
mod isolation;
#[path = "direct/leftovers.rs"]
mod leftovers;
#[path = "direct/machine.rs"]
mod machine;
#[path = "direct/rig.rs"]
mod rig;

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

mod shared {
    async fn rig() -> Option<crate::conformance::rig::Rig> {
        crate::rig::conforming("shared").await
    }
    crate::conformance!(rig);
}

mod isolated {
    async fn rig() -> Option<crate::conformance::rig::Rig> {
        crate::rig::conforming("isolated").await
    }
    crate::conformance!(rig);
}

/// The number of a user nobody has, and of those it was given.
const USER: u32 = 47_110;
const GIVEN: &str = "tester:4711000:65536\n";

/// Everything above, and in the other files, once more: as a user who isn't root and has others to give away.
#[test]
fn all_of_it_as_a_user() {
    if !rig::is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let copy = |from: &Path, to: &str| assert!(std::fs::copy(from, path(to)).unwrap() > 0);
    copy(&std::env::current_exe().unwrap(), "test");
    copy(&executr_tests::program::contained_agent(), "agent");
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    std::fs::write(path("passwd"), format!("{passwd}tester:x:{USER}:{USER}::/nowhere:/bin/sh\n")).unwrap();
    std::fs::write(path("subids"), GIVEN).unwrap();
    for name in ["tmp", "home"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    for name in ["", "tmp", "home"] {
        chown(path(name), Some(USER), Some(USER)).unwrap();
    }
    // A user of this mount namespace only: nothing is changed on the machine.
    let script = r#"
        cd "$0"
        mount --bind passwd /etc/passwd
        for file in /etc/subuid /etc/subgid; do
            [ -e $file ] || exit 77
            mount --bind subids $file
        done
        exec setpriv --reuid "$1" --regid "$1" --clear-groups ./test --test-threads 2 --skip all_of_it_as_a_user
    "#;
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "--propagation", "private", "/bin/sh", "-euc", script])
        .arg(temp.path())
        .arg(USER.to_string());
    shell.env("TMPDIR", path("tmp")).env(rig::AGENT, path("agent")).env("HOME", path("home"));
    for name in ["NEXTEST", "NEXTEST_EXECUTION_MODE"] {
        shell.env_remove(name);
    }
    let output = shell.output().unwrap();
    if output.status.code() == Some(77) {
        executr_tests::component::missing("uidmap", "there is no /etc/subuid");
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("isolated::exit_codes_are_told ... ok"), "{said}");
}
