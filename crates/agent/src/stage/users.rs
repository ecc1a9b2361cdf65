//! A user namespace: whoever isn't root of the machine can be root of a part of it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::plan::Users;

/// Where `newuidmap` and `newgidmap` are, which root has made able to give what the two files say.
const TOOLS: [&str; 2] = ["newuidmap", "newgidmap"];
const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

/// Enters one with these users in it.
pub(super) fn enter(users: Users) -> io::Result<()> {
    match users {
        Users::Machine => Ok(()),
        Users::One => {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            unshare()?;
            // The kernel's condition for who maps groups without being told that they may.
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
        }
        Users::Many => many(),
    }
}

fn unshare() -> io::Result<()> {
    // SAFETY: reads no memory; there is one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } < 0 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("{error}; this machine keeps its users from making them")));
    }
    Ok(())
}

/// From within nobody may map others: another process of ours, which stays outside, has it done.
fn many() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let user = name_of(uid);
    let ranges = FILES.map(|file| ranges(&fs::read_to_string(file).unwrap_or_default(), &user, uid));
    let (mut ours, theirs) = UnixStream::pair()?;
    let process = std::process::id();
    // SAFETY: there is one thread, so the child may do what this process might.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        drop(ours);
        let code = map(theirs, process, [uid, gid], &ranges).map_or(1, |()| 0);
        // SAFETY: ends this process and nothing else.
        unsafe { libc::_exit(code) };
    }
    drop(theirs);
    unshare()?;
    ours.write_all(b"!")?;
    let mut status = 0;
    // SAFETY: a child of ours, and a number to write to.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    if waited != child || status != 0 {
        return Err(io::Error::other(format!("newuidmap and newgidmap don't give {user} what /etc/subuid says")));
    }
    // SAFETY: no groups, then plain numbers; the namespace's root, with none of the user's other groups.
    unsafe {
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>());
        libc::syscall(libc::SYS_setresgid, 0, 0, 0);
        libc::syscall(libc::SYS_setresuid, 0, 0, 0);
    }
    Ok(())
}

/// The other process: waits for the namespace, and has users and groups mapped into it.
fn map(mut until: UnixStream, process: u32, own: [u32; 2], ranges: &[Vec<(u32, u32)>; 2]) -> io::Result<()> {
    until.read_exact(&mut [0])?;
    for ((tool, own), ranges) in TOOLS.iter().zip(own).zip(ranges) {
        let mut command = Command::new(tool);
        command.arg(process.to_string()).args(["0", &own.to_string(), "1"]);
        let mut inside = 1;
        for (first, count) in ranges {
            command.args([inside, *first, *count].map(|number| number.to_string()));
            inside += count;
        }
        let done = command.stdin(Stdio::null()).status()?;
        if !done.success() {
            return Err(io::Error::other("refused"));
        }
    }
    Ok(())
}

/// The name of a user; the number where there is none.
fn name_of(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    named.unwrap_or(number)
}

/// What a file of `user:first:count` lines gives a user.
fn ranges(text: &str, user: &str, uid: u32) -> Vec<(u32, u32)> {
    let of = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == user || name == uid.to_string()).then_some(range)
    });
    of.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_user() {
        let text = "ann:100000:65536\nbob:165536:65536\n1000:231072:10\nbroken\nann:x:1\n";
        assert_eq!(ranges(text, "ann", 1000), [(100_000, 65_536), (231_072, 10)]);
        assert_eq!(ranges(text, "eve", 1), []);
    }
}
