//! What runs below this process, as /proc tells it, and signals to it.
//!
//! Only ever used to end or signal a tree; that nothing is left is never concluded from here but from `wait4`
//! saying that there is no child: this process is the subreaper of all it starts.

use std::collections::HashMap;
use std::fs;

/// Sends `signal` to a process, or with a negative number to a process group. One that is gone is no error.
pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: kill(2) reads no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

/// The process group of a process; `None` when there is no such process.
pub(crate) fn group(pid: i32) -> Option<i32> {
    // SAFETY: getpgid(2) reads no memory of ours.
    let group = unsafe { libc::getpgid(pid) };
    (group > 0).then_some(group)
}

/// All descendants of this process, zombies among them.
pub(crate) fn descendants() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    if let Some(found) = by_children_files(own) {
        return found;
    }
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in every_process() {
        children.entry(parent).or_default().push(pid);
    }
    below(own, |pid| children.remove(&pid).unwrap_or_default())
}

/// The children of this process, zombies among them.
pub(crate) fn children() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    children_of(own)
        .unwrap_or_else(|| every_process().filter(|(_, parent)| *parent == own).map(|(process, _)| process).collect())
}

/// By /proc/PID/task/TID/children: costs as much as the tree is large, not the machine. Some kernels lack it.
fn by_children_files(own: i32) -> Option<Vec<i32>> {
    children_of(own)?;
    Some(below(own, |pid| children_of(pid).unwrap_or_default()))
}

fn children_of(pid: i32) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let listed = fs::read_to_string(thread.path().join("children")).ok()?;
        found.extend(listed.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(found)
}

fn below(root: i32, mut children: impl FnMut(i32) -> Vec<i32>) -> Vec<i32> {
    let mut found = children(root);
    let mut next = 0;
    while next < found.len() {
        let more = children(found[next]);
        found.extend(more);
        next += 1;
    }
    found
}

fn every_process() -> impl Iterator<Item = (i32, i32)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, stat_field(&stat, 4)?.parse().ok()?))
    })
}

/// The parent of a process; 0 when that is of another namespace. `None` when there is no such process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_field(&stat, 4)?.parse().ok()
}

/// When a process started, in clock ticks since boot: with its id this names it for as long as the machine runs.
/// `None` when there is no such process.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_field(&stat, 22)?.parse().ok()
}

/// A field of /proc/PID/stat by its number in proc(5), from the third on. The second is the program's name, which may hold
/// blanks and parentheses, so counting begins behind the last one.
fn stat_field(stat: &str, number: usize) -> Option<&str> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "17 (a b) R) S 4 17 17 0 -1 4194304 97 0 0 0 0 0 0 0 20 0 1 0 4242 2568192";
        assert_eq!(stat_field(stat, 3), Some("S"));
        assert_eq!(stat_field(stat, 4), Some("4"));
        assert_eq!(stat_field(stat, 22), Some("4242"));
        assert_eq!(stat_field(stat, 60), None);
    }

    #[test]
    fn a_tree_is_found_at_any_depth() {
        let tree = HashMap::from([(1, vec![2, 3]), (3, vec![4]), (4, vec![5])]);
        let mut found = below(1, |pid| tree.get(&pid).cloned().unwrap_or_default());
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4, 5]);
    }

    #[test]
    fn a_child_is_found() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = descendants();
        signal(pid, libc::SIGKILL);
        child.wait().unwrap();
        assert!(found.contains(&pid), "{found:?} lacks {pid}");
        assert!(start_time(std::process::id()).is_some());
    }
}
