//! One PostgreSQL cluster: its directory, its process, and SQL through `psql`.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Durability, Stop, install::Install};
use crate::loopback;

const USER: &str = "postgres";

/// How often a start is repeated when another process took the chosen port in between.
const PORT_CHOICES: usize = 5;

/// A handle to a cluster. Copies name the same cluster; none of them ends it by going away.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    install: Install,
    directory: PathBuf,
    port: u16,
    password: String,
}

impl Cluster {
    /// Makes and starts a cluster in an empty directory which belongs to the server's account. The files are put
    /// among its data.
    pub(super) fn create(
        install: Install,
        directory: &Path,
        durability: Durability,
        settings: &[(&str, &str)],
        files: &[(&str, &str)],
    ) -> Self {
        let mut cluster = Self { install, directory: directory.to_owned(), port: 0, password: random_word() };
        cluster.initialise();
        for (name, text) in files {
            let path = cluster.data().join(name);
            fs::write(&path, text).expect("the cluster's directory is writable");
            cluster.install.give_file(&path);
        }
        cluster.configure(durability, settings);
        for choice in 1.. {
            cluster.port = loopback::free_port();
            match cluster.try_start() {
                Ok(()) => break,
                Err(log) if choice < PORT_CHOICES && log.contains("Address already in use") => {}
                Err(log) => panic!("PostgreSQL does not start:\n{log}"),
            }
        }
        cluster
    }

    /// The cluster another process made in `directory`.
    pub(super) fn existing(install: Install, directory: &Path, port: u16, password: String) -> Self {
        Self { install, directory: directory.to_owned(), port, password }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn socket_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    pub(super) fn url(&self, database: &str) -> String {
        let Self { port, password, .. } = self;
        format!("postgres://{USER}:{password}@127.0.0.1:{port}/{database}")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn initialise(&self) {
        let password_file = self.directory.join("password");
        fs::write(&password_file, &self.password).expect("the cluster's directory is writable");
        self.install.give_file(&password_file);
        let mut initdb = self.install.command("initdb");
        initdb
            .args(["--no-sync", "--encoding=UTF8", "--no-locale", "--username", USER])
            // The socket lies in a directory only this account and root can enter; the port is open to all users
            // of the machine.
            .args(["--auth-local=trust", "--auth-host=password"])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(self.data());
        must("initdb", &mut initdb);
    }

    fn configure(&self, durability: Durability, settings: &[(&str, &str)]) {
        let synced = match durability {
            Durability::Synced => "on",
            Durability::Fast => "off",
        };
        let directory = self.directory.display();
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\n\
             unix_socket_directories = '{directory}'\n\
             max_connections = 300\n\
             shared_buffers = 64MB\n\
             fsync = {synced}\n\
             full_page_writes = {synced}\n\
             timezone = UTC\n"
        );
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let path = self.data().join("postgresql.auto.conf");
        fs::write(path, text).expect("the cluster's directory is writable");
    }

    /// Starts the cluster on its port and waits until it answers.
    pub(super) fn start(&self) {
        if let Err(log) = self.try_start() {
            panic!("PostgreSQL does not start again:\n{log}");
        }
    }

    fn try_start(&self) -> Result<(), String> {
        let mut start = self.pg_ctl("start");
        start
            .arg("--log")
            .arg(self.log())
            .arg(format!("--options=-p {}", self.port))
            // The server inherits these; a test's own pipes would stay open for as long as it lives.
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match start.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(fs::read_to_string(self.log()).unwrap_or_default()),
            Err(error) => Err(format!("pg_ctl: {error}")),
        }
    }

    /// Stops the server and waits until it is gone.
    pub(super) fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Crash => "immediate",
        };
        must("pg_ctl stop", self.pg_ctl("stop").args(["--mode", mode]));
    }

    /// Stops the server, if it runs, without looking at the data again.
    pub(super) fn discard(&self) {
        // Fails when the server is stopped already, which is as good.
        drop(self.pg_ctl("stop").args(["--mode", "immediate"]).output());
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = self.install.command("pg_ctl");
        command.arg(action).args(["--wait", "--timeout", "60", "--pgdata"]).arg(self.data());
        command
    }

    /// Ends the server and removes its directory once the process `owner` is gone, even by SIGKILL.
    pub(super) fn end_with(&self, owner: u32) {
        // The outer shell ends at once, so that the watcher is nobody's unreaped child. Its own process group
        // keeps it out of reach of a runner that ends a test's whole group.
        const WATCH: &str = "( tail -s 0.2 --pid=\"$1\" -f /dev/null; \
             read -r pid < \"$2/data/postmaster.pid\" && kill -QUIT \"$pid\" && tail -s 0.1 --pid=\"$pid\" -f /dev/null; \
             rm -rf \"$2\" ) &";
        let status = Command::new("sh")
            .args(["-c", WATCH, "sh"])
            .arg(owner.to_string())
            .arg(&self.directory)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "sh must be able to watch over the test server");
    }

    #[track_caller]
    pub(super) fn sql(&self, statements: &str) -> String {
        self.sql_in("postgres", statements)
    }

    #[track_caller]
    pub(super) fn sql_in(&self, database: &str, statements: &str) -> String {
        let output = must("psql", &mut self.psql(database, statements));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs SQL whose failure does not matter.
    pub(super) fn try_sql(&self, statements: &str) {
        drop(self.psql("postgres", statements).output());
    }

    fn psql(&self, database: &str, statements: &str) -> Command {
        let mut command = self.install.command("psql");
        command
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .args(["--set=ON_ERROR_STOP=1", "--username", USER, "--dbname", database])
            .arg("--host")
            .arg(&self.directory)
            .arg(format!("--port={}", self.port))
            .args(["--command", statements])
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }
}

/// 16 random letters and digits, good as a password and in a database's name.
pub(super) fn random_word() -> String {
    let mut bytes = [0_u8; 8];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .expect("Linux has /dev/urandom");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn must(what: &str, command: &mut Command) -> Output {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("{what} cannot be started: {error}"),
    };
    assert!(
        output.status.success(),
        "{what} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_killed_owner_takes_its_server_and_files_along() {
        let Some(install) = Install::find() else {
            return;
        };
        let directory = tempfile::tempdir().expect("a temporary directory").keep();
        install.give_directory(&directory);
        let cluster = Cluster::create(install, &directory, Durability::Fast, &[], &[]);
        let postmaster =
            fs::read_to_string(cluster.data().join("postmaster.pid")).expect("a running server has a process file");
        let postmaster = postmaster.lines().next().expect("its first line is the process");
        let postmaster = Path::new("/proc").join(postmaster);
        assert!(postmaster.exists());

        let mut owner = Command::new("sleep").arg("1000").spawn().expect("sleep is here");
        cluster.end_with(owner.id());
        owner.kill().expect("a child of ours");
        owner.wait().expect("a child of ours");

        let deadline = Instant::now() + Duration::from_secs(30);
        while postmaster.exists() || directory.exists() {
            assert!(Instant::now() < deadline, "the server outlived its owner");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
