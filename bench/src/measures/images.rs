//! Images: a pull beside Docker's, a build beside `tar` and `sha256sum`.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use executr_tests::program;
use executr_tests::registry::{Registry, Setup};

use super::Settings;
use crate::program::{Running, executr, timed, within};
use crate::report::{Row, Target, median};
use crate::trees::{Numbers, source_text};

const LAYERS: usize = 20;
const LAYER_MIB: usize = 25;
/// Of the image that is built again.
const BUILT_LAYERS: usize = 50;
const BUILT_FILES: usize = 100;
const BUILT_FILE: usize = 256 << 10;

/// Files of mostly text, some noise among it: what is in an image.
fn fill(directory: &Path, mebibytes: usize, text: &[u8], numbers: &mut Numbers) -> io::Result<()> {
    let mut left = mebibytes << 20;
    let mut number = 0;
    while left > 0 {
        let length = (4 << 10 << (numbers.draw() % 9)).min(left);
        let content = if numbers.draw().is_multiple_of(4) {
            numbers.noise(length)
        } else {
            let from = numbers.draw() as usize % text.len();
            text.iter().copied().cycle().skip(from).take(length).collect()
        };
        let above = directory.join(format!("d{}", number / 50));
        fs::create_dir_all(&above)?;
        fs::write(above.join(format!("f{number}")), content)?;
        left -= length;
        number += 1;
    }
    Ok(())
}

/// `executr image` with a home of its own.
fn image(home: &Path, arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(executr()?);
    command.env("HOME", home).env_remove("XDG_STATE_HOME").arg("image").args(arguments);
    Ok(command)
}

/// Docker on this machine's loopback, without a network of its own: no firewall is touched.
struct Docker {
    directory: tempfile::TempDir,
    _process: Running,
}

impl Docker {
    fn start() -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let script = r#"exec dockerd -H "unix://$0/d.sock" --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/d.pid" --bridge none --iptables=false --ip6tables=false"#;
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", script]).arg(directory.path()).process_group(0);
        let process = Running::start(&mut command)?;
        let docker = Self { directory, _process: process };
        within(Duration::from_secs(60), || docker.ask("GET", "/_ping").ok())?;
        Ok(docker)
    }

    fn ask(&self, method: &str, path: &str) -> io::Result<Duration> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "-X", method, "--unix-socket"]);
        timed(curl.arg(self.directory.path().join("d.sock")).arg(format!("http://docker{path}")))
    }
}

/// A pull with nothing here yet.
///
/// # Errors
/// When a program fails, or a file can't be made.
pub fn pull(settings: &Settings) -> io::Result<Vec<Row>> {
    let setup = Setup::default();
    let registry = Registry::start(&setup).ok_or_else(|| io::Error::other("docker-registry is missing"))?;
    let temp = tempfile::tempdir()?;
    let text = source_text(program::root())?;
    let mut numbers = Numbers(11);
    let name = format!("{}/bench:1", registry.host());
    let mut layers = vec![];
    for number in 0..LAYERS {
        let directory = temp.path().join(format!("layer{number}"));
        fill(&directory, LAYER_MIB, &text, &mut numbers)?;
        layers.push(format!("{}:/layer{number}", directory.display()));
    }
    let mut build = image(&temp.path().join("builder"), &["build", "-t", &name, "--compression", "gzip", "--push"])?;
    timed(build.args(layers.iter().flat_map(|layer| ["--layer", layer])))?;
    let docker = Docker::start()?;
    let (mut ours, mut other) = (vec![], vec![]);
    for round in 0..settings.repeats.max(3) {
        let home = temp.path().join(format!("home{round}"));
        let one = || timed(&mut image(&home, &["pull", &name])?);
        let two = || docker.ask("POST", &format!("/images/create?fromImage={name}"));
        // In turns, so that neither always finds what the other has warmed.
        if round % 2 == 0 {
            ours.push(one()?.as_secs_f64() * 1e3);
            other.push(two()?.as_secs_f64() * 1e3);
        } else {
            other.push(two()?.as_secs_f64() * 1e3);
            ours.push(one()?.as_secs_f64() * 1e3);
        }
        docker.ask("DELETE", &format!("/images/{name}?force=1"))?;
        fs::remove_dir_all(&home)?;
    }
    Ok(vec![Row {
        measure: format!("image pull, {} MiB, {LAYERS} layers, cold", LAYERS * LAYER_MIB),
        ours: median(&ours),
        against: "docker pull".to_owned(),
        other: median(&other),
        unit: "ms",
        target: Target::AtMost(0.7),
    }])
}

/// A build of which one layer has changed.
///
/// # Errors
/// When a program fails, or a file can't be made.
pub fn build(settings: &Settings) -> io::Result<Vec<Row>> {
    let temp = tempfile::tempdir()?;
    let mut numbers = Numbers(13);
    let directories: Vec<PathBuf> =
        (0..BUILT_LAYERS).map(|number| temp.path().join(format!("layer{number}"))).collect();
    for directory in &directories {
        fs::create_dir(directory)?;
        for file in 0..BUILT_FILES {
            fs::write(directory.join(format!("f{file}")), numbers.noise(BUILT_FILE))?;
        }
    }
    let layers: Vec<_> =
        directories.iter().enumerate().map(|(number, path)| format!("{}:/layer{number}", path.display())).collect();
    let build = || {
        let mut command = image(temp.path(), &["build", "-t", "bench"])?;
        timed(command.args(layers.iter().flat_map(|layer| ["--layer", layer])))
    };
    // What was written just now is not believed.
    std::thread::sleep(Duration::from_secs(1));
    build()?;
    let (mut ours, mut other) = (vec![], vec![]);
    for round in 0..settings.repeats.max(3) {
        let changed = &directories[round * 7 % BUILT_LAYERS];
        fs::write(changed.join("f0"), numbers.noise(BUILT_FILE))?;
        let packed = temp.path().join("packed.tar");
        let mut pack = Command::new("sh");
        pack.args(["-c", r#"tar -C "$0" -cf "$1" . && sha256sum "$1""#]).arg(changed).arg(&packed);
        let mut pack = || timed(&mut pack).map(|took| other.push(took.as_secs_f64() * 1e3));
        let mut built = || build().map(|took| ours.push(took.as_secs_f64() * 1e3));
        if round % 2 == 0 {
            built()?;
            pack()?;
        } else {
            pack()?;
            built()?;
        }
        fs::remove_file(packed)?;
    }
    Ok(vec![Row {
        measure: format!(
            "image build, one of {BUILT_LAYERS} layers of {} MiB changed",
            (BUILT_FILES * BUILT_FILE) >> 20
        ),
        ours: median(&ours),
        against: "tar and sha256sum of that one".to_owned(),
        other: median(&other),
        unit: "ms",
        target: Target::AtMost(1.2),
    }])
}
