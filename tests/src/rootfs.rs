//! The files of a small system, made of busybox: what images for tests are made of.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// Makes them in `root`: all of busybox's commands, and `/etc/passwd` with the user `ann` (1000). `false` (after saying so)
/// where busybox is missing.
///
/// # Panics
///
/// If they can't be made, and under `CI=true` if it is missing.
#[must_use]
pub fn make(root: &Path) -> bool {
    let Some(busybox) = BUSYBOX.into_iter().find(|path| Path::new(path).is_file()) else {
        crate::component::missing("busybox", "it is in neither /bin nor /usr/bin");
        return false;
    };
    for directory in ["bin", "usr/bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(directory)).expect("the directory for the files is writable");
    }
    fs::copy(busybox, root.join("bin/busybox")).expect("it can be copied");
    let listed = Command::new(busybox).arg("--list").output().expect("busybox runs");
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|name| *name != "busybox") {
        symlink("/bin/busybox", root.join("bin").join(name)).expect("a link can be made");
    }
    symlink("/bin/busybox", root.join("usr/bin/env")).expect("a link can be made");
    let write = |name: &str, text: &str| fs::write(root.join(name), text).expect("a file can be written");
    write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n");
    write("etc/group", "root:x:0:\nann:x:1000:\n");
    true
}
