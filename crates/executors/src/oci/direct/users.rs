//! What a user who isn't root can have.

use std::fs;
use std::path::Path;

use crate::oci::engine::ContainerError;

/// Which users there are in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Users {
    /// The machine's: we are root.
    Machine,
    /// Root, which is who we are outside.
    One,
    /// Root, and those that /etc/subuid gives us.
    Many,
}

impl Users {
    /// Those that a container needs whose steps run as `user`.
    pub(super) fn of(user: &str) -> Result<Self, ContainerError> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self::Machine);
        }
        if is_root(user) {
            return Ok(Self::One);
        }
        if others() {
            return Ok(Self::Many);
        }
        Err(ContainerError::Settings(format!(
            "steps can't run as `{user}`: whoever runs this worker has only root in containers; give them others in /etc/subuid \
             and /etc/subgid (`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`), and install \
             newuidmap (Debian: `apt-get install uidmap`)"
        )))
    }

    /// Those that every user of this machine has.
    pub(super) fn least() -> Self {
        if rustix::process::geteuid().is_root() { Self::Machine } else { Self::One }
    }

    /// Those that own what may be left of any container.
    pub(super) fn to_remove() -> Self {
        match (rustix::process::geteuid().is_root(), others()) {
            (true, _) => Self::Machine,
            (false, true) => Self::Many,
            (false, false) => Self::One,
        }
    }

    /// How a stage is told.
    pub(super) fn words(self) -> impl Iterator<Item = &'static str> {
        let words: &[&str] = match self {
            Self::Machine => &[],
            Self::One => &["--users", "one"],
            Self::Many => &["--users", "many"],
        };
        words.iter().copied()
    }
}

/// Whether steps can run as `user` here.
pub(in crate::oci) fn can_become(user: &str) -> Result<(), ContainerError> {
    Users::of(user).map(drop)
}

/// Whether `USER` or `USER:GROUP` is root, and only that.
fn is_root(user: &str) -> bool {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    matches!(user, "" | "0" | "root") && matches!(group, "" | "0" | "root")
}

/// Whether this user was given others, and has what it takes to use them.
#[must_use]
pub fn others() -> bool {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let gives = |file: &str| {
        fs::read_to_string(file).is_ok_and(|text| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .any(|(name, _)| name == uid || is_called(&passwd, name, &uid))
        })
    };
    let has_tool = |tool: &str| Path::new("/usr/bin").join(tool).is_file();
    ["newuidmap", "newgidmap"].into_iter().all(has_tool) && ["/etc/subuid", "/etc/subgid"].into_iter().all(gives)
}

fn is_called(passwd: &str, name: &str, uid: &str) -> bool {
    passwd.lines().any(|line| {
        let mut fields = line.split(':');
        fields.next() == Some(name) && fields.nth(1) == Some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_both_its_names() {
        for user in ["", "0", "root", "0:0", "root:root", "0:"] {
            assert!(is_root(user), "{user}");
        }
        for user in ["ann", "1000", "0:5", "root:wheel", "00"] {
            assert!(!is_root(user), "{user}");
        }
    }

    #[test]
    fn users_are_known_by_name_and_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/:/bin/sh\n";
        assert!(
            is_called(passwd, "ann", "1000") && !is_called(passwd, "root", "1000") && !is_called(passwd, "ann", "1001")
        );
    }
}
