//! Where PostgreSQL is installed on this machine, and as whom it may run.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::component;

/// PostgreSQL's programs, and the account they run as.
#[derive(Clone, Debug)]
pub(super) struct Install {
    programs: PathBuf,
    // Only set for root, as whom PostgreSQL refuses to run.
    account: Option<Account>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    user: u32,
    group: u32,
}

impl Install {
    /// The newest PostgreSQL here, or `None` after [`component::missing`] has said so.
    pub(super) fn find() -> Option<Self> {
        let Some(programs) = programs() else {
            component::missing("PostgreSQL", "initdb and pg_ctl were not found");
            return None;
        };
        let account = if running_as_root() {
            let Some(account) = account_named("postgres") else {
                component::missing("PostgreSQL", "it refuses to run as root and there is no user postgres");
                return None;
            };
            Some(account)
        } else {
            None
        };
        Some(Self { programs, account })
    }

    /// One of PostgreSQL's programs, to be run as the account a server may have.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some(account) = self.account {
            command.uid(account.user).gid(account.group);
        }
        // Settings of the developer's own PostgreSQL mean nothing here.
        for variable in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS"] {
            command.env_remove(variable);
        }
        command
    }

    /// Gives a directory to the account the server runs as, and to it alone.
    pub(super) fn give_directory(&self, directory: &Path) {
        self.give(directory, 0o700);
    }

    /// Gives a file to the account the server runs as, and to it alone.
    pub(super) fn give_file(&self, file: &Path) {
        self.give(file, 0o600);
    }

    fn give(&self, path: &Path, mode: u32) {
        if let Some(account) = self.account {
            chown(path, Some(account.user), Some(account.group)).expect("root may give away");
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("the owner sets the mode");
    }
}

fn programs() -> Option<PathBuf> {
    let complete = |directory: &PathBuf| {
        ["initdb", "pg_ctl", "postgres", "psql"].iter().all(|program| directory.join(program).is_file())
    };
    let from_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .find(complete);
    from_path.or_else(|| {
        // Debian keeps the server's programs out of PATH, one folder per major version.
        fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .flatten()
            .filter_map(|entry| {
                let version: u32 = entry.file_name().to_str()?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .filter(|(_, directory)| complete(directory))
            .max_by_key(|(version, _)| *version)
            .map(|(_, directory)| directory)
    })
}

fn running_as_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn account_named(name: &str) -> Option<Account> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let mut numbers = fields.skip(1).map(str::parse);
        match (found, numbers.next(), numbers.next()) {
            (true, Some(Ok(user)), Some(Ok(group))) => Some(Account { user, group }),
            _ => None,
        }
    })
}
