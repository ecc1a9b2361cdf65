//! Trees where an agent is: finding what changed beside `find -newer`, putting a repository there beside `docker cp` and `tar`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use executr_agent_protocol::driver::{Agent, AgentOptions, PutTree, UnixDial};
use executr_tests::program;
use executr_tree::{Baseline, BlobDir, BlobSource, Manifest, SnapshotOptions, snapshot};

use super::Settings;
use crate::report::{Row, Target, median};
use crate::trees;

const LOOKED_AT: usize = 200_000;
const CHANGED: usize = 1_000;
const FILES: usize = 20_000;

fn timed<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<(f64, T)> {
    let started = Instant::now();
    let result = work()?;
    Ok((started.elapsed().as_secs_f64() * 1e3, result))
}

/// What changed in a large directory. Files get as long as they were, so that all that changed are read, too.
///
/// # Errors
/// When a program fails, or a file can't be made.
pub fn changed(settings: &Settings) -> io::Result<Vec<Row>> {
    let temp = tempfile::tempdir()?;
    let job = temp.path().join("job");
    let path = |file: usize| job.join(format!("part{}/module{}/file{file}", file / 2_000, file / 20));
    for file in 0..LOOKED_AT {
        if file % 20 == 0 {
            fs::create_dir_all(path(file).parent().unwrap_or(&job))?;
        }
        fs::write(path(file), format!("content of file {file:08} in round 00"))?;
    }
    let mut baseline = Baseline::default().advance(&job).map_err(io::Error::other)?.baseline;
    let mark = temp.path().join("mark");
    let (mut ours, mut other) = (vec![], vec![]);
    for round in 1..=settings.repeats.max(3) {
        // What was written just now is read again by a look, and is not newer for `find`.
        std::thread::sleep(Duration::from_secs(1));
        fs::write(&mark, "")?;
        std::thread::sleep(Duration::from_millis(50));
        for number in 0..CHANGED {
            let file = number * (LOOKED_AT / CHANGED) + round;
            fs::write(path(file), format!("content of file {file:08} in round {round:02}"))?;
        }
        let look = || {
            let changes = baseline.compare(&job).map_err(io::Error::other)?;
            expect(changes.all().len())
        };
        let find = || {
            let mut find = Command::new("find");
            let output = find.arg(&job).args(["-newer"]).arg(&mark).args(["-type", "f"]).output()?;
            expect(output.stdout.iter().filter(|byte| **byte == b'\n').count())
        };
        // In turns, so that neither always finds what the other has warmed.
        if round % 2 == 0 {
            ours.push(timed(look)?.0);
            other.push(timed(find)?.0);
        } else {
            other.push(timed(find)?.0);
            ours.push(timed(look)?.0);
        }
        baseline = baseline.advance(&job).map_err(io::Error::other)?.baseline;
    }
    Ok(vec![Row {
        measure: format!("{CHANGED} changed of {LOOKED_AT} files found"),
        ours: median(&ours),
        against: "find -newer".to_owned(),
        other: median(&other),
        unit: "ms",
        target: Target::AtMost(1.5),
    }])
}

fn expect(found: usize) -> io::Result<()> {
    if found == CHANGED { Ok(()) } else { Err(io::Error::other(format!("{found} changes were found, not {CHANGED}"))) }
}

/// A repository into a directory by an agent, out of blobs. Beside it `tar`, and `docker cp` where `DOCKER_HOST` names an
/// engine.
///
/// # Errors
/// When a program fails, or a file can't be made.
pub fn into_directory(settings: &Settings) -> io::Result<Vec<Row>> {
    let temp = tempfile::tempdir()?;
    let source = temp.path().join("source");
    fs::create_dir(&source)?;
    trees::repository(&source, FILES, &trees::source_text(program::root())?)?;
    let blobs = BlobDir::open(temp.path().join("blobs")).map_err(io::Error::other)?;
    let tree = snapshot(&source, &SnapshotOptions::repository()).map_err(io::Error::other)?;
    super::trees::keep(&tree, &blobs)?;
    let manifest = Arc::new(tree.manifest().clone());
    // What is copied is the same: no `.git`.
    fs::remove_dir_all(source.join(".git"))?;
    // A connection lives on between calls.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let serving = Serving::start(temp.path())?;
    let agent = runtime.block_on(serving.agent())?;
    let container = Container::start(temp.path())?;
    let (mut ours, mut tar, mut docker) = (vec![], vec![], vec![]);
    for round in 0..settings.repeats.max(3) {
        // Nothing is removed meanwhile: some file systems look long for a fresh inode afterwards.
        let target = temp.path().join(format!("job{round}"));
        ours.push(timed(|| runtime.block_on(put(&agent, &target, &manifest, &blobs)))?.0);
        let target = temp.path().join(format!("tar{round}"));
        fs::create_dir(&target)?;
        tar.push(timed(|| through_tar(&source, &target))?.0);
        if let Some(container) = &container {
            docker.push(timed(|| container.copy(&source, round))?.0);
        }
    }
    let row = |against: &str, other: &[f64], target| Row {
        measure: format!("{FILES} files into a directory by an agent"),
        ours: median(&ours),
        against: against.to_owned(),
        other: median(other),
        unit: "ms",
        target,
    };
    let mut rows = vec![row("tar -c | tar -x", &tar, Target::Shown)];
    if container.is_some() {
        rows.push(row("docker cp", &docker, Target::AtMost(0.7)));
    }
    Ok(rows)
}

async fn put(agent: &Agent, target: &Path, manifest: &Arc<Manifest>, blobs: &BlobDir) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let directory = target.as_os_str().as_bytes().to_vec().into();
    let to = PutTree { directory, note: true, ..PutTree::default() };
    let blobs: Arc<dyn BlobSource> = Arc::new(blobs.clone());
    agent.put_tree(to, Arc::clone(manifest), blobs).await.map_err(io::Error::other)
}

fn through_tar(source: &Path, target: &Path) -> io::Result<()> {
    let script = "set -o pipefail; tar -C \"$0\" -cf - . | tar -C \"$1\" -xf -";
    trees::succeed(Command::new("bash").args(["-c", script]).arg(source).arg(target))
}

/// An agent that serves on a socket.
pub(super) struct Serving {
    process: Child,
    socket: PathBuf,
}

impl Serving {
    pub(super) fn start(place: &Path) -> io::Result<Self> {
        let socket = place.join("socket");
        let mut command = Command::new(program::contained_agent());
        let process = command.args(["serve", "--socket"]).arg(&socket).stdin(Stdio::null()).spawn()?;
        Ok(Self { process, socket })
    }

    pub(super) async fn agent(&self) -> io::Result<Agent> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match Agent::connect(Arc::new(UnixDial(self.socket.clone())), AgentOptions::default()).await {
                Ok(agent) => return Ok(agent),
                Err(error) if Instant::now() > deadline => return Err(io::Error::other(error)),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // One that has ended is no child any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A container of an image that holds nothing, never started.
struct Container {
    name: String,
}

impl Container {
    fn start(place: &Path) -> io::Result<Option<Self>> {
        if std::env::var_os("DOCKER_HOST").is_none() {
            return Ok(None);
        }
        let name = format!("executr-bench-{}", std::process::id());
        let (empty, root) = (place.join("empty.tar"), place.join("empty"));
        fs::create_dir_all(root.join("job"))?;
        trees::succeed(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&empty).arg("."))?;
        let quiet = |command: &mut Command| trees::succeed(command.stdout(Stdio::null()));
        quiet(Command::new("docker").arg("import").arg(&empty).arg(&name))?;
        quiet(Command::new("docker").args(["create", "--name", &name, &name, "/none"]))?;
        Ok(Some(Self { name }))
    }

    fn copy(&self, source: &Path, round: usize) -> io::Result<()> {
        let to = format!("{}:/job/{round}", self.name);
        trees::succeed(Command::new("docker").arg("cp").arg(source).arg(to).stdout(Stdio::null()).stderr(Stdio::null()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for arguments in [["rm", "-f", &self.name], ["rmi", "-f", &self.name]] {
            // What stays is shown by `docker ps -a` under its name.
            let _ = Command::new("docker").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}
