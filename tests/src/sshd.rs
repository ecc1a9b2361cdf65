//! Real OpenSSH servers for tests, each a process of its own on loopback with its own keys and its own home directory, and
//! what a client needs to get there. Nothing of the user's own set-up is read or written.
//!
//! ```no_run
//! use executr_tests::sshd::Sshd;
//!
//! let Some(host) = Sshd::start() else { return }; // says why in one line; a failure under CI=true
//! // ssh -F <host.config()> host true
//! # let _ = host.config();
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::component;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A login shell that is as users have it.
pub const PLAIN: &str = "/bin/sh";

/// A running server, ended with this value.
#[derive(Debug)]
pub struct Sshd {
    directory: tempfile::TempDir,
    port: u16,
    server: Child,
}

impl Sshd {
    /// One whose users have a plain shell and an empty home directory. `None`, after saying so, where there is no sshd.
    ///
    /// # Panics
    ///
    /// If it doesn't start, and under `CI=true` if it is missing.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::with(PLAIN, "")
    }

    /// One where whatever a client asks for is run by `shell -c`, which may be several words, and whose configuration has more `lines`.
    ///
    /// # Panics
    ///
    /// As [`Sshd::start`].
    #[must_use]
    pub fn with(shell: &str, lines: &str) -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("executr-sshd-").tempdir().expect("a writable directory");
        Self::within(directory, shell, lines)
    }

    fn within(directory: tempfile::TempDir, shell: &str, lines: &str) -> Option<Self> {
        if let Some(missing) = lacking() {
            component::missing("OpenSSH", &format!("there is no {missing}"));
            return None;
        }
        let path = directory.path();
        fs::create_dir_all(path.join("home")).expect("its own directory is writable");
        for key in ["host_key", "user_key", "other_key"] {
            key_pair(&path.join(key));
        }
        fs::copy(path.join("user_key.pub"), path.join("authorized_keys")).expect("its own directory is writable");
        // Where it keeps apart what isn't authenticated yet.
        drop(fs::create_dir("/run/sshd"));
        write_shell(path, shell);
        let (server, port) = serve(path, lines, 0);
        let host = Self { directory, port, server };
        host.write_config();
        Some(host)
    }

    /// What it has: keys, its configuration, `home`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The home directory of whoever logs in.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// Where it listens on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client's configuration, to which it is known as `host`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("config")
    }

    /// A client's configuration in which `more` comes first.
    ///
    /// # Panics
    ///
    /// Never, as long as its directory is there.
    #[must_use]
    pub fn config_with(&self, name: &str, more: &str) -> PathBuf {
        let path = self.path().join(name);
        let usual = fs::read_to_string(self.config()).expect("it was written");
        fs::write(&path, format!("{more}\n{usual}")).expect("its own directory is writable");
        path
    }

    fn write_config(&self) {
        let (path, port) = (self.path().display(), self.port);
        let key = fs::read_to_string(self.path().join("host_key.pub")).expect("it was made");
        fs::write(self.path().join("known_hosts"), format!("executr-test-host {key}")).expect("writable");
        // Quick algorithms: the machines of tests are slow, and tests are many.
        let config = format!(
            "Host *\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias executr-test-host\n  IdentityFile {path}/user_key\n  \
             IdentitiesOnly yes\n  UserKnownHostsFile {path}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n  KexAlgorithms curve25519-sha256\n"
        );
        fs::write(self.config(), config).expect("its own directory is writable");
    }

    /// Shows another host key from now on.
    ///
    /// # Panics
    ///
    /// If it doesn't start again.
    pub fn change_key(&mut self) {
        fs::remove_file(self.path().join("host_key")).expect("it was made");
        fs::remove_file(self.path().join("host_key.pub")).expect("it was made");
        key_pair(&self.path().join("host_key"));
        self.stop();
        self.start_again("");
    }

    /// Ends it with its connections; what was started through them goes on.
    pub fn stop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
        self.cut();
    }

    /// Starts it again, where it was.
    ///
    /// # Panics
    ///
    /// If it doesn't start.
    pub fn start_again(&mut self, lines: &str) {
        (self.server, _) = serve(self.directory.path(), lines, self.port);
    }

    /// Ends all its connections at once; new ones can be made.
    pub fn cut(&self) {
        let of_ours = format!("{}", self.path().display());
        for process in processes() {
            let words = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let is_session =
                fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.starts_with("sshd"));
            let is_ours = words.windows(of_ours.len()).any(|window| window == of_ours.as_bytes());
            if is_session && is_ours && process != self.server.id() {
                kill(process);
            }
        }
    }
}

impl Sshd {
    /// Ends what was started through it: agents, as a rule, that wait for their callers, and what they run.
    pub fn end_agents(&self) {
        let home = format!("HOME={}", self.home().display());
        let own = self.path().display().to_string();
        for process in processes().filter(|process| *process != std::process::id()) {
            let holds = |file: &str, text: &str| {
                let bytes = fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
                bytes.windows(text.len()).any(|window| window == text.as_bytes())
            };
            if holds("environ", &home) || (holds("cmdline", &own) && holds("cmdline", "dwell")) {
                kill(process);
            }
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
        self.end_agents();
    }
}

fn lacking() -> Option<&'static str> {
    let there = |name: &str| {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|place| Path::new(place).join(name).is_file())
    };
    ["sshd", "ssh", "ssh-keygen"].into_iter().find(|name| !there(name))
}

/// A new pair of keys at `path`.
///
/// # Panics
///
/// If it can't be made.
pub fn key_pair(path: &Path) {
    let mut keygen = Command::new("ssh-keygen");
    let made = keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "executr-test", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen starts").success(), "no key at {}", path.display());
}

/// The program that stands in for a login shell.
fn write_shell(directory: &Path, shell: &str) {
    let path = directory.join("shell");
    let home = directory.join("home");
    let script = format!(
        "#!/bin/sh\nexport HOME={home}\ncd {home}\nexec {shell} -c \"$SSH_ORIGINAL_COMMAND\"\n",
        home = home.display()
    );
    let mut file = File::create(&path).expect("its own directory is writable");
    file.write_all(script.as_bytes()).expect("its own directory is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its own file");
}

/// A server on `port`, or on a free one.
fn serve(directory: &Path, lines: &str, port: u16) -> (Child, u16) {
    let path = directory.display();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|socket| socket.local_addr());
        let port = match port {
            0 => free().expect("loopback has a free port").port(),
            port => port,
        };
        let config = format!(
            "{lines}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {path}/host_key\nAuthorizedKeysFile {path}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             MaxStartups 200\nForceCommand {path}/shell\n"
        );
        fs::write(directory.join("sshd_config"), config).expect("its own directory is writable");
        let log = File::create(directory.join("sshd.log")).expect("its own directory is writable");
        let mut server = Command::new("/usr/sbin/sshd");
        // Its sessions are known by what is in their environment.
        server.args(["-D", "-e", "-f"]).arg(directory.join("sshd_config")).env("EXECUTR_TEST_SSHD", directory);
        let mut server = server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("sshd starts");
        loop {
            let listens = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            let ended = server.try_wait().expect("a child of ours").is_some();
            if listens && !ended {
                return (server, port);
            }
            let said = || fs::read_to_string(directory.join("sshd.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "sshd doesn't listen:\n{}", said());
            if ended {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn kill(process: u32) {
    if let Some(process) = rustix::process::Pid::from_raw(process.cast_signed()) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    }
}
