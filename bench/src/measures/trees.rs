//! Trees: a snapshot beside `git status`, eight job directories beside `cp`, an artifact beside `tar` and `zstd`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use executr_coordinator::{Coordinator, Options, Unobserved};
use executr_spec::Tenant;
use executr_store::sqlite::{SqliteOptions, SqliteStore};
use executr_tests::program;
use executr_tree::wire::{RemoteBlobs, UserBlobs, fetch, save};
use executr_tree::{BlobDir, Existing, Manifest, Snapshot, SnapshotOptions, materialise, snapshot};

use super::Settings;
use crate::report::{Row, Target, median};
use crate::{http, trees};

const FILES: usize = 20_000;
const CHANGED: usize = 10;
const JOBS: usize = 8;
const ARTIFACT_MIB: usize = 1_024;

fn timed<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<(f64, T)> {
    let started = Instant::now();
    let result = work()?;
    Ok((started.elapsed().as_secs_f64() * 1e3, result))
}

/// A directory, and in it a repository.
fn repository() -> io::Result<(tempfile::TempDir, PathBuf)> {
    let temp = tempfile::tempdir()?;
    let source = temp.path().join("source");
    fs::create_dir(&source)?;
    trees::repository(&source, FILES, &trees::source_text(program::root())?)?;
    Ok((temp, source))
}

/// A snapshot of a repository in which little changed since the last one.
///
/// # Errors
/// When a program fails, or a file can't be made.
pub fn snapshots(settings: &Settings) -> io::Result<Vec<Row>> {
    let (temp, source) = repository()?;
    let (temp, source) = (temp.path(), source.as_path());
    let mut options = SnapshotOptions::repository();
    options.stat_cache = Some(temp.join("stat-cache"));
    let take = || snapshot(source, &options).map_err(io::Error::other);
    // What was written just now is not believed by either.
    std::thread::sleep(Duration::from_secs(3));
    take()?;
    let (mut ours, mut other) = (vec![], vec![]);
    for round in 0..settings.repeats.max(3) {
        for number in 0..CHANGED {
            let file = (number * 1_999 + round) % FILES;
            let path = source.join(format!("part{}/module{}/file{file}.rs", file / 400, file / 20));
            fs::write(path, format!("changed in round {round}"))?;
        }
        // In turns, so that neither always finds what the other has warmed.
        let mut status = Command::new("git");
        status.args(["--no-optional-locks", "status", "--porcelain"]).current_dir(source).stdout(Stdio::null());
        if round % 2 == 0 {
            ours.push(timed(take)?.0);
            other.push(timed(|| trees::succeed(&mut status))?.0);
        } else {
            other.push(timed(|| trees::succeed(&mut status))?.0);
            ours.push(timed(take)?.0);
        }
    }
    Ok(vec![Row {
        measure: format!("snapshot, {FILES} files, {CHANGED} changed"),
        ours: median(&ours),
        against: "git status".to_owned(),
        other: median(&other),
        unit: "ms",
        target: Target::AtMost(1.5),
    }])
}

/// Puts a snapshot's blobs where trees are put together from.
pub(super) fn keep(tree: &Snapshot, blobs: &BlobDir) -> io::Result<()> {
    let mut partials = Vec::new();
    for digest in tree.manifest().blobs() {
        let mut bytes = Vec::new();
        let blob = tree.blob(digest).ok_or_else(|| io::Error::other("a blob is missing"))?;
        io::Read::read_to_end(&mut blob.open(), &mut bytes)?;
        if let Some(mut partial) = blobs.bring(digest).map_err(io::Error::other)? {
            partial.append(&bytes).map_err(io::Error::other)?;
            partials.push(partial);
        }
    }
    blobs.commit_all(partials).map_err(io::Error::other)
}

/// The same tree put into several job directories at once.
///
/// # Errors
/// When a program fails, or a file can't be made.
pub fn job_directories(settings: &Settings) -> io::Result<Vec<Row>> {
    let (temp, source) = repository()?;
    let (temp, source) = (temp.path(), source.as_path());
    let blobs = BlobDir::open(temp.join("blobs")).map_err(io::Error::other)?;
    let tree = snapshot(source, &SnapshotOptions::repository()).map_err(io::Error::other)?;
    keep(&tree, &blobs)?;
    // What is copied is the same: no `.git`.
    let plain = temp.join("plain");
    materialise(tree.manifest(), &blobs, &plain, Existing::Refuse).map_err(io::Error::other)?;
    let targets: Vec<PathBuf> = (0..JOBS).map(|job| temp.join(format!("job{job}"))).collect();
    let (mut ours, mut other) = (vec![], vec![]);
    for _ in 0..settings.repeats {
        ours.push(timed(|| place_all(tree.manifest(), &blobs, &targets))?.0);
        targets.iter().try_for_each(trees::remove)?;
        other.push(timed(|| copy_all(&plain, &targets))?.0);
        targets.iter().try_for_each(trees::remove)?;
    }
    Ok(vec![Row {
        measure: format!("{FILES} files into {JOBS} job directories"),
        ours: median(&ours),
        against: format!("{JOBS} parallel cp -a --reflink=auto"),
        other: median(&other),
        unit: "ms",
        target: Target::AtMost(1.0),
    }])
}

fn place_all(manifest: &Manifest, blobs: &BlobDir, targets: &[PathBuf]) -> io::Result<()> {
    std::thread::scope(|scope| {
        let place = |target: &PathBuf| materialise(manifest, blobs, target, Existing::Refuse).map(drop);
        let placing: Vec<_> = targets.iter().map(|target| scope.spawn(move || place(target))).collect();
        placing.into_iter().try_for_each(|placing| {
            placing.join().map_err(|_| io::Error::other("a thread panicked"))?.map_err(io::Error::other)
        })
    })
}

fn copy_all(plain: &Path, targets: &[PathBuf]) -> io::Result<()> {
    let copy = |target: &PathBuf| Command::new("cp").args(["-a", "--reflink=auto"]).arg(plain).arg(target).spawn();
    let copies: Vec<_> = targets.iter().map(copy).collect::<Result<_, _>>()?;
    copies.into_iter().try_for_each(
        |mut copy| {
            if copy.wait()?.success() { Ok(()) } else { Err(io::Error::other("cp failed")) }
        },
    )
}

/// What one job saves and another restores, on disk on both sides.
///
/// # Errors
/// When a program fails, or a file can't be made.
pub fn artifact(settings: &Settings) -> io::Result<Vec<Row>> {
    let temp = tempfile::tempdir()?;
    let temp = temp.path();
    let made = temp.join("made");
    trees::artifact(&made, ARTIFACT_MIB, &trees::source_text(program::root())?)?;
    sync(temp)?;
    let (mut ours, mut other) = (vec![], vec![]);
    for _ in 0..settings.repeats {
        ours.push(timed(|| through_a_coordinator(&made, temp))?.0);
        ["store", "cache", "restored"].iter().try_for_each(|name| trees::remove(&temp.join(name)))?;
        sync(temp)?;
        other.push(timed(|| through_tar(&made, temp))?.0);
        trees::remove(&temp.join("restored"))?;
        fs::remove_file(temp.join("archive"))?;
        sync(temp)?;
    }
    let rate = |milliseconds: f64| ARTIFACT_MIB as f64 / (milliseconds / 1e3);
    Ok(vec![Row {
        measure: format!("artifact of {ARTIFACT_MIB} MiB saved and restored"),
        ours: rate(median(&ours)),
        against: "tar | zstd -3 -T2 and back".to_owned(),
        other: rate(median(&other)),
        unit: "MiB/s",
        target: Target::AtLeast(0.8),
    }])
}

/// Waits until all that was written is on disk.
fn sync(temp: &Path) -> io::Result<()> {
    let directory = fs::File::open(temp)?;
    rustix::fs::syncfs(&directory).map_err(io::Error::from)
}

/// As a job saves it and another restores it: into a coordinator's store, out of it, into a directory.
fn through_a_coordinator(made: &Path, temp: &Path) -> io::Result<()> {
    http::runtime()?.block_on(async {
        let options = SqliteOptions::new(temp.join("store"));
        let store = SqliteStore::open(options).await.map_err(io::Error::other)?;
        let coordinator = Coordinator::start(Arc::new(store), Options::default(), Arc::new(Unobserved)).await;
        let coordinator = coordinator.map_err(io::Error::other)?;
        let remote: Arc<dyn RemoteBlobs> = Arc::new(UserBlobs(Arc::new(coordinator.client(Tenant::default()))));
        let saved = save(&remote, made.to_owned(), SnapshotOptions::everything(), &|_| {}).await;
        let saved = saved.map_err(io::Error::other)?;
        let blobs = BlobDir::open(temp.join("cache")).map_err(io::Error::other)?;
        let fetched = fetch(&remote, &blobs, saved.digest, &|_| {}).await.map_err(io::Error::other)?;
        let restored = temp.join("restored");
        materialise(&fetched.manifest, &blobs, &restored, Existing::Refuse).map_err(io::Error::other)?;
        sync(temp)
    })
}

fn through_tar(made: &Path, temp: &Path) -> io::Result<()> {
    let (archive, restored) = (temp.join("archive"), temp.join("restored"));
    fs::create_dir(&restored)?;
    let mut shell = Command::new("bash");
    let script = "set -o pipefail; tar -C \"$0\" -cf - . | zstd -q -3 -T2 -o \"$1\" && sync \"$1\" && zstd -q -dc \"$1\" | tar -C \"$2\" -xf -";
    trees::succeed(shell.args(["-c", script]).arg(made).arg(archive).arg(restored))?;
    sync(temp)
}
