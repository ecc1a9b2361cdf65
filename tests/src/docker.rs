//! Real container engines for tests, Docker and Podman: a daemon of its own with everything it has in a temporary directory, in network and
//! mount namespaces of its own, so that the machine's firewall and mounts stay as they are. All tests of a run share it.
//!
//! ```no_run
//! use executr_tests::docker;
//!
//! let Some(engine) = docker::engine() else { return }; // says why in one line; a failure under CI=true
//! let address = engine.address(); // unix:///…/d.sock
//! # let _ = address;
//! ```
//!
//! Its images are made here of busybox; it fetches none. Whoever took the lock first starts it; a watcher ends it with the
//! run, however that ends.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{component, rootfs, run};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Docker,
    Podman,
}

/// What Podman as root has to be told on machines that may do less than it expects.
const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits=["nofile=20000:20000","nproc=4096:4096"]
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
runtime="runc"
"#;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// An image with busybox, `/etc/passwd` with the user `ann` (1000), and the variable `FROM_IMAGE=image`.
pub const IMAGE: &str = "executr-test";
/// The same, whose maker said that it runs as `ann`.
pub const IMAGE_OF_ANN: &str = "executr-test-ann";
/// An image with nothing in it.
pub const EMPTY_IMAGE: &str = "executr-test-empty";

/// A running engine.
#[derive(Clone, Debug)]
pub struct Engine {
    kind: Kind,
    directory: PathBuf,
}

/// The run's Docker, or `None` (after saying so) where it or busybox is missing, or this isn't root.
///
/// # Panics
///
/// If it doesn't start, and under `CI=true` if it is missing.
#[must_use]
pub fn engine() -> Option<Engine> {
    of_kind(Kind::Docker, "Docker", "docker", &["dockerd"])
}

/// The run's Podman, in the same way.
///
/// # Panics
///
/// As [`engine`].
#[must_use]
pub fn podman() -> Option<Engine> {
    of_kind(Kind::Podman, "Podman", "podman", &["podman", "runc"])
}

fn of_kind(kind: Kind, name: &str, short: &str, programs: &[&str]) -> Option<Engine> {
    if let Some(reason) = lacking(programs) {
        component::missing(name, &reason);
        return None;
    }
    let (base, _lock) = run::locked_directory(&std::env::temp_dir());
    let engine = Engine { kind, directory: base.join(format!("{short}-{}", run::id())) };
    if !engine.directory.join("ready").is_file() {
        // Here only if whoever started before us ended halfway.
        drop(fs::remove_dir_all(&engine.directory));
        engine.start();
        engine.make_images();
        fs::write(engine.directory.join("ready"), "").expect("the engine's directory is writable");
    }
    Some(engine)
}

fn lacking(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a daemon of its own takes root".to_owned());
    }
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
    let is_missing = |program: &&str| !places.iter().any(|place| Path::new(place).join(program).is_file());
    let all = programs.iter().copied().chain(["busybox", "unshare", "curl"]);
    let missing = all.into_iter().find(is_missing)?;
    Some(format!("there is no {missing}"))
}

impl Engine {
    /// Its address, as `DOCKER_HOST` has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("d.sock")
    }

    /// The process whose network it has.
    ///
    /// # Panics
    ///
    /// On Podman, which doesn't say.
    #[must_use]
    pub fn process(&self) -> u32 {
        let pid = fs::read_to_string(self.directory.join("d.pid")).expect("it has written its number down");
        pid.trim().parse().expect("a number")
    }

    /// Sends one of its images to a registry under another name, as whoever the registry of tests knows.
    ///
    /// # Panics
    ///
    /// When the registry doesn't take it.
    pub fn push(&self, image: &str, repository: &str, tag: &str) {
        drop(self.ask("POST", &format!("/images/{image}/tag?repo={repository}&tag={tag}")));
        let login = format!(
            r#"{{"username":"{}","password":"{}","serveraddress":"{repository}"}}"#,
            crate::registry::USER,
            crate::registry::PASSWORD
        );
        let mut encoded = Command::new("base64");
        let mut encoded = encoded.arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        encoded.stdin.take().expect("it is piped").write_all(login.as_bytes()).expect("it reads");
        let encoded = encoded.wait_with_output().expect("it ends").stdout;
        let header = format!("X-Registry-Auth: {}", String::from_utf8_lossy(&encoded));
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--unix-socket"]).arg(self.socket()).args(["-X", "POST", "-H", &header]);
        let pushed = curl.arg(format!("http://docker/images/{repository}/push?tag={tag}")).output().expect("curl runs");
        let said = String::from_utf8_lossy(&pushed.stdout);
        assert!(pushed.status.success() && !said.contains("errorDetail"), "{repository}:{tag}: {said}");
        drop(self.ask("DELETE", &format!("/images/{repository}:{tag}")));
    }

    /// What it answers; the path begins behind the API's version.
    ///
    /// # Panics
    ///
    /// When it doesn't answer, or with an error.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str) -> String {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--unix-socket"]).arg(self.socket());
        let asked = curl.args(["-X", method, &format!("http://docker{path}")]).output().expect("curl runs");
        let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert!(asked.status.success(), "{method} {path}: {answer}{}", String::from_utf8_lossy(&asked.stderr));
        answer
    }

    /// Containers, running or not, that bear this label (`NAME` or `NAME=VALUE`): how many there are.
    ///
    /// # Panics
    ///
    /// When it doesn't answer.
    #[must_use]
    pub fn count(&self, label: &str) -> usize {
        self.labelled(label).len()
    }

    /// Networks that bear this label (`NAME=VALUE`): how many there are.
    ///
    /// # Panics
    ///
    /// When it doesn't answer.
    #[must_use]
    pub fn count_networks(&self, label: &str) -> usize {
        let (name, value) = label.split_once('=').expect("NAME=VALUE");
        // Podman passes over filters.
        self.ask("GET", "/networks").matches(&format!(r#""{name}":"{value}""#)).count()
    }

    /// Removes those with this label, as somebody else might.
    ///
    /// # Panics
    ///
    /// When it doesn't answer.
    pub fn remove(&self, label: &str) {
        for id in self.labelled(label) {
            drop(self.ask("DELETE", &format!("/containers/{id}?force=1")));
        }
    }

    fn labelled(&self, label: &str) -> Vec<String> {
        let filter = format!(r#"{{"label":["{label}"]}}"#);
        let escaped: String = filter.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let found = self.ask("GET", &format!("/containers/json?all=1&filters={escaped}"));
        let ids = found.split(r#""Id":""#).skip(1).filter_map(|rest| rest.split('"').next());
        ids.map(str::to_owned).collect()
    }

    #[expect(clippy::zombie_processes, reason = "the watcher outlives this process: it ends with the run")]
    fn start(&self) {
        let directory = &self.directory;
        DirBuilder::new().mode(0o700).create(directory).expect("the tests' own directory is writable");
        let log = File::create(directory.join("log")).expect("the engine's directory is writable");
        let copy = log.try_clone().expect("a file can be opened twice");
        fs::write(directory.join("containers.conf"), CONTAINERS_CONF).expect("the engine's directory is writable");
        let daemon = match self.kind {
            Kind::Docker => {
                r#"dockerd -H "unix://$0/d.sock" --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/d.pid""#
            }
            Kind::Podman => {
                r#"podman --root "$0/data" --runroot "$0/exec" --tmpdir "$0/tmp" --network-config-dir "$0/networks" system service --time 0 "unix://$0/d.sock""#
            }
        };
        // What serves names on Podman's networks, it finds by a file in this place.
        let own_run = r#"mkdir -p "$0/run" /run/containers; mount --bind "$0/run" /run/containers"#;
        let daemon = format!("ip link set lo up; {own_run}; exec {daemon}");
        // The watcher: as long as the run and the daemon are there; then the daemon goes, and all it had.
        let script = r#"
            cd /
            unshare -n -m --propagation private sh -c "$3" "$1" &
            daemon=$!
            while kill -0 "$2" 2>/dev/null && kill -0 $daemon 2>/dev/null; do sleep 0.5; done
            kill $daemon
            wait $daemon
            names="$1/run/networks/aardvark-dns/aardvark.pid"
            test ! -f "$names" || kill $(cat "$names")
            rm -rf "$1"
        "#;
        Command::new("/bin/sh")
            .args(["-c", script, "docker-watcher"])
            .arg(directory)
            .arg(run::process().to_string())
            .arg(daemon)
            .env("CONTAINERS_CONF", directory.join("containers.conf"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            // An interrupt of the run is not meant for it.
            .process_group(0)
            .spawn()
            .expect("a shell starts");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--fail", "--unix-socket"]).arg(self.socket()).arg("http://docker/_ping");
            if curl.output().is_ok_and(|answer| answer.status.success()) {
                return;
            }
            let said = || fs::read_to_string(directory.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "it doesn't answer:\n{}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn make_images(&self) {
        let root = self.directory.join("root");
        assert!(rootfs::make(&root), "busybox was looked for");
        let packed = |of: &Path| {
            let tar = Command::new("tar").arg("-C").arg(of).args(["-c", "."]).output().expect("tar runs");
            assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
            tar.stdout
        };
        let full = packed(&root);
        self.import(IMAGE, &["ENV FROM_IMAGE=image PATH=/bin:/usr/bin"], &full);
        // What the examples name.
        self.import("busybox:stable", &[], &full);
        self.import("busybox:musl", &[], &full);
        self.import(IMAGE_OF_ANN, &["USER ann"], &full);
        self.import(EMPTY_IMAGE, &[], &packed(&root.join("tmp")));
        drop(fs::remove_dir_all(root));
    }

    fn import(&self, name: &str, changes: &[&str], tar: &[u8]) {
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let (name, tag) = name.split_once(':').unwrap_or((name, "latest"));
        let changes: String = changes.iter().map(|change| format!("&changes={}", escaped(change))).collect();
        let url = format!("http://docker/images/create?fromSrc=-&repo={name}&tag={tag}{changes}");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--unix-socket"]).arg(self.socket());
        curl.args([
            "-X",
            "POST",
            "-H",
            "Content-Type: application/x-tar",
            "-H",
            "Expect:",
            "--data-binary",
            "@-",
            &url,
        ]);
        let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl runs");
        curl.stdin.take().expect("it is piped").write_all(tar).expect("curl reads");
        let ended = curl.wait_with_output().expect("curl ends");
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && !said.contains("errorDetail"), "{name} can't be imported: {said}");
    }
}
