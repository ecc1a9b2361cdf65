//! The container's root, in a mount namespace of its own.

use std::ffi::{CStr, CString, c_ulong};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr;

use super::plan::Root;

/// Where version 2's hierarchy is on machines that have both; crun refuses to work beside it.
const UNIFIED: &CStr = c"/sys/fs/cgroup/unified";

/// `AT_RECURSIVE`, which the C library's headers for Rust have as another type.
const RECURSIVE: u32 = 0x8000;

/// A namespace of its own, out of which nothing gets.
pub(super) fn enter() -> io::Result<()> {
    // SAFETY: reads no memory.
    answer(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)
}

/// Puts something else over version 2's hierarchy. Covered rather than unmounted, because in a user namespace what came
/// from outside can't be taken away.
pub(super) fn hide_unified() -> io::Result<()> {
    match mount(Some(c"none"), UNIFIED, Some(c"tmpfs"), libc::MS_RDONLY, None) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Mounts what the container is to have as its root.
pub(super) fn make(root: &Root) -> io::Result<()> {
    match root {
        Root::None => Ok(()),
        Root::Layers { target, layers, upper, work } => overlay(target, layers, upper, work),
        Root::Machine { target } => machine(target),
    }
}

/// Lets go of it, so that what lies below can be removed.
pub(super) fn leave(root: &Root) {
    let (Root::Layers { target, .. } | Root::Machine { target }) = root else { return };
    if let Ok(target) = CString::new(target.as_os_str().as_bytes()) {
        // Not mounted when it couldn't be prepared. SAFETY: a zero-ended string.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn overlay(target: &Path, layers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<()> {
    // By descriptor: all paths together must fit into a page, and may hold what separates them.
    let open = |path: &Path| {
        let opened = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
        opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    let layers = layers.iter().map(|layer| open(layer)).collect::<io::Result<Vec<File>>>()?;
    let (upper, work) = (open(upper)?, open(work)?);
    let name = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let lower = layers.iter().map(name).collect::<Vec<_>>().join(":");
    let plain = format!("lowerdir={lower},upperdir={},workdir={}", name(&upper), name(&work));
    let target = CString::new(target.as_os_str().as_bytes())?;
    // What may be written is left to who runs the container; devices are never an image's to bring.
    let try_with = |options: String| {
        let options = CString::new(options)?;
        mount(Some(c"overlay"), &target, Some(c"overlay"), libc::MS_NODEV, Some(&options))
    };
    // A user's own mount keeps its notes in attributes that users may set. Root reads layers that engines and root
    // unpacked, whose notes are in the others.
    if is_root_of_machine() {
        // What a job has written is of no use once the machine has crashed.
        return try_with(format!("{plain},volatile")).or_else(|_| try_with(plain));
    }
    try_with(format!("{plain},userxattr,volatile")).or_else(|_| try_with(format!("{plain},userxattr")))
}

/// Whether users here are the machine's.
fn is_root_of_machine() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

fn machine(target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    mount(Some(c"/"), &target, None, libc::MS_BIND | libc::MS_REC, None)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: a zero-ended string, and a structure of the size that is told.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            RECURSIVE,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: zero-ended strings, or none where the kernel wants none.
    answer(unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(options).cast()) })
}

fn answer(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
