//! Which hierarchies are mounted and where this process stands in them, read from /proc.

use std::fs;
use std::path::{Path, PathBuf};

/// This process's own group in every hierarchy it can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// In version 2's one hierarchy.
    pub unified: Option<PathBuf>,
    /// In version 1's, by controller.
    pub v1: Vec<(String, PathBuf)>,
}

impl Hierarchies {
    /// Those of this process; none where /proc doesn't tell.
    #[must_use]
    pub fn discover() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// The group of a version 1 controller.
    #[must_use]
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path())
    }

    /// Every group of this process, each once.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        self.unified.iter().chain(self.v1.iter().map(|(_, path)| path)).map(PathBuf::as_path)
    }

    fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut found = Self::default();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            for line in cgroup.lines() {
                // hierarchy number : controllers : path
                let mut parts = line.splitn(3, ':');
                let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                    continue;
                };
                let Some(own) = mount.reach(path) else {
                    continue;
                };
                if mount.kind == "cgroup2" && number == "0" {
                    found.unified.get_or_insert(own);
                } else if mount.kind == "cgroup" && number != "0" {
                    for controller in controllers.split(',') {
                        if mount.options.split(',').any(|option| option == controller) && found.v1(controller).is_none()
                        {
                            found.v1.push((controller.to_owned(), own.clone()));
                        }
                    }
                }
            }
        }
        found
    }
}

/// One line of /proc/self/mountinfo.
struct Mount<'line> {
    /// The part of the hierarchy that is visible here.
    root: String,
    point: String,
    kind: &'line str,
    /// Of the file system, where version 1 names its controllers.
    options: &'line str,
}

impl<'line> Mount<'line> {
    fn parse(line: &'line str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut system = system.split(' ');
        Some(Self {
            root: unescape(mount.next()?),
            point: unescape(mount.next()?),
            kind: system.next()?,
            options: system.nth(1)?,
        })
    }

    /// Where a group of this hierarchy is found; `None` when it lies outside what is mounted.
    fn reach(&self, group: &str) -> Option<PathBuf> {
        let below = Path::new(group).strip_prefix(&self.root).ok()?;
        if below.components().any(|part| part == std::path::Component::ParentDir) {
            return None;
        }
        Some(Path::new(&self.point).join(below))
    }
}

/// Mount points are written with octal escapes for blanks and backslashes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_alone() {
        let found = Hierarchies::parse(
            "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/system.slice/executr.service\n",
        );
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/system.slice/executr.service")));
        assert!(found.v1.is_empty());
    }

    #[test]
    fn both_versions_and_joint_controllers() {
        let found = Hierarchies::parse(
            "30 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             31 29 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
             32 29 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             33 29 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "9:name=systemd:/\n8:pids:/a/b\n1:cpu,cpuacct:/c\n0::/u\n",
        );
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified/u")));
        assert_eq!(found.v1("cpu"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/c")));
        assert_eq!(found.v1("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/c")));
        assert_eq!(found.v1("pids"), Some(Path::new("/sys/fs/cgroup/pids/a/b")));
        assert_eq!(found.v1("memory"), None);
    }

    #[test]
    fn a_container_sees_its_part_only() {
        let mounts = "40 39 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let found = Hierarchies::parse(mounts, "4:memory:/docker/abc/x\n");
        assert_eq!(found.v1("memory"), Some(Path::new("/sys/fs/cgroup/memory/x")));
        assert_eq!(Hierarchies::parse(mounts, "4:memory:/elsewhere\n"), Hierarchies::default());
        let namespaced = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Hierarchies::parse(namespaced, "0::/../other\n"), Hierarchies::default());
    }
}
