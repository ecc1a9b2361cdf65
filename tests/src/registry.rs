//! A real registry for tests, `docker-registry`: one of its own for whoever starts it, on the loopback, with everything it
//! has in a temporary directory.
//!
//! ```no_run
//! use executr_tests::registry::{Registry, Setup};
//!
//! let Some(registry) = Registry::start(&Setup::default()) else { return }; // says why in one line; a failure under CI=true
//! let name = format!("{}/team/tool:1", registry.host());
//! # let _ = name;
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{component, loopback};

/// Who may come in where a registry knows its users.
pub const USER: &str = "ann";
/// Her password.
pub const PASSWORD: &str = "secret";
/// The line about her in the registry's file of users.
const KNOWN: &str = "ann:$2y$05$wH6B7exFgUwED83USoqhy.IA8PQxQcJrl3tXiJaO8OZ6KUT1Vglgq\n";

const PROGRAM: &str = "/usr/bin/docker-registry";

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What kind of registry.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// It lets in only [`USER`].
    pub knows_users: bool,
    /// It speaks TLS, with this certificate and key (PEM).
    pub tls: Option<(String, String)>,
    /// It has nothing of its own, and hands on what the registry at this URL has.
    pub proxy_of: Option<String>,
    /// It is on the loopback of this process, not on ours: of an engine that has a network of its own.
    pub beside: Option<u32>,
}

/// A running registry, ended with this value.
#[derive(Debug)]
pub struct Registry {
    directory: TempDir,
    port: u16,
    process: Child,
}

impl Registry {
    /// Starts one; `None` (after saying so) where the program is missing.
    ///
    /// # Panics
    ///
    /// If it doesn't start, and under `CI=true` if it is missing.
    #[must_use]
    pub fn start(setup: &Setup) -> Option<Self> {
        if !Path::new(PROGRAM).is_file() {
            component::missing("registry", &format!("there is no {PROGRAM}"));
            return None;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Somebody may take the port first.
            if let Ok(registry) = Self::try_start(setup, deadline) {
                return Some(registry);
            }
            assert!(Instant::now() < deadline, "it doesn't start");
        }
    }

    fn try_start(setup: &Setup, deadline: Instant) -> Result<Self, ()> {
        let directory = tempfile::Builder::new().prefix("executr-registry-").tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let write = |name: &str, text: &str| fs::write(at(name), text).expect("a file can be written");
        let port = loopback::free_port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}, delete: {{enabled: true}}}}\n",
            at("data")
        );
        config += &format!("http:\n  addr: 127.0.0.1:{port}\n");
        if let Some((certificate, key)) = &setup.tls {
            write("certificate.pem", certificate);
            write("key.pem", key);
            config += &format!("  tls: {{certificate: {:?}, key: {:?}}}\n", at("certificate.pem"), at("key.pem"));
        }
        if setup.knows_users {
            write("users", KNOWN);
            config += &format!("auth: {{htpasswd: {{realm: tests, path: {:?}}}}}\n", at("users"));
        }
        if let Some(origin) = &setup.proxy_of {
            config += &format!("proxy: {{remoteurl: {origin:?}}}\n");
        }
        write("config.yml", &config);
        let log = fs::File::create(at("log")).expect("a file can be written");
        let copy = log.try_clone().expect("a file can be opened twice");
        let mut command = match setup.beside {
            None => Command::new(PROGRAM),
            Some(process) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/proc/{process}/ns/net")).arg(PROGRAM);
                command
            }
        };
        command.arg("serve").arg(at("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let process = command.stdin(Stdio::null()).stdout(log).stderr(copy).spawn().expect("it is there");
        let mut registry = Self { directory, port, process };
        loop {
            let answers = match setup.beside {
                None => std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(),
                Some(_) => registry.log().contains("listening on"),
            };
            if registry.process.try_wait().expect("a child of ours").is_some() {
                return Err(());
            }
            if answers {
                return Ok(registry);
            }
            assert!(Instant::now() < deadline, "it doesn't answer:\n{}", registry.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its name, as images have it: host and port.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// All it has logged: a line for each request.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// How many requests so far had this in their line, as `"GET /v2/team/tool/blobs/`.
    #[must_use]
    pub fn requests(&self, with: &str) -> usize {
        self.log().lines().filter(|line| line.contains(with) && line.contains("HTTP/1.1\" ")).count()
    }

    /// The file in which it has a blob of this digest.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
