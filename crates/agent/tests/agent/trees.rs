//! Trees there and back, what changed meanwhile, and what must fail.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use executr_agent_protocol::driver::{
    Agent, AgentError, Dial, Duplex, PutTree, TakeTree, Touched, TreeError, UnixDial,
};
use executr_spec::workflow::ArchiveKind;
use executr_tree::stream::StreamError;
use executr_tree::{BlobDir, BlobSource, Changes, News, Snapshot, SnapshotOptions, snapshot, unpack_modified};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::rig::{Rig, bytes_of, connect, within};

const MOST: u64 = 1 << 30;

fn make(root: &Path) {
    for n in 0..500_usize {
        let path = root.join(format!("d{}/e{}", n % 7, n % 3));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(format!("f{n}")), vec![n as u8; n * 31]).unwrap();
    }
    fs::write(root.join("large"), vec![1; 3 << 20]).unwrap();
    fs::write(root.join("again"), vec![1; 3 << 20]).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff odd\n")), "odd").unwrap();
    fs::set_permissions(root.join("large"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("nowhere", root.join("link")).unwrap();
}

fn whole(path: &Path) -> Snapshot {
    snapshot(path, &SnapshotOptions::everything()).unwrap()
}

fn to(path: &Path) -> PutTree {
    PutTree { directory: bytes_of(path), note: true, ..PutTree::default() }
}

async fn put(agent: &Agent, tree: &Path, to: PutTree) -> Result<(), TreeError> {
    let tree = whole(tree);
    let manifest = Arc::new(tree.manifest().clone());
    let blobs: Arc<dyn BlobSource> = Arc::new(tree);
    within(agent.put_tree(to, manifest, blobs)).await
}

fn told(changes: &Changes) -> Vec<(&Path, News)> {
    changes.told().map(|change| (change.path.as_path(), change.news)).collect()
}

#[tokio::test]
async fn a_tree_goes_there_and_comes_back() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let (source, job) = (rig.path("source"), rig.path("job"));
    fs::create_dir(&source).unwrap();
    make(&source);
    put(&agent, &source, to(&job)).await.unwrap();
    let there = whole(&job);
    assert_eq!(there.digest(), whole(&source).digest());
    let blobs = BlobDir::open(rig.path("blobs")).unwrap();
    let told = Arc::new(Mutex::new(0));
    let tell = {
        let told = Arc::clone(&told);
        Arc::new(move |_| *told.lock().unwrap() += 1)
    };
    let from = TakeTree { directory: job.clone(), most: MOST, ..TakeTree::default() };
    let taken = within(agent.take_tree(from.clone(), blobs.clone(), tell.clone())).await.unwrap().unwrap();
    assert_eq!(taken.tree.digest, there.digest());
    assert!(*told.lock().unwrap() >= taken.tree.manifest.blobs().len());
    let named = TakeTree { path: "d1".into(), named: true, ..from.clone() };
    let taken = within(agent.take_tree(named, blobs.clone(), tell.clone())).await.unwrap().unwrap();
    let options = SnapshotOptions { named: true, ..SnapshotOptions::everything() };
    assert_eq!(taken.tree.digest, snapshot(&source.join("d1"), &options).unwrap().digest());
    let nothing = TakeTree { path: "nothing".into(), ..from.clone() };
    assert!(within(agent.take_tree(nothing, blobs.clone(), tell.clone())).await.unwrap().is_none());
    let little = TakeTree { most: 1_000, ..from };
    let refused = within(agent.take_tree(little, blobs, tell)).await.unwrap_err();
    assert!(matches!(refused, TreeError::Here(StreamError::TooLarge { .. })), "{refused}");
}

#[tokio::test]
async fn what_a_task_changed_is_told() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let (source, job) = (rig.path("source"), rig.path("job"));
    fs::create_dir(&source).unwrap();
    make(&source);
    put(&agent, &source, to(&job)).await.unwrap();
    assert!(within(agent.changes(&job)).await.unwrap().is_empty());
    fs::write(job.join("new"), "x").unwrap();
    fs::write(job.join("d1/e1/f1"), "changed").unwrap();
    fs::remove_file(job.join("link")).unwrap();
    fs::set_permissions(job.join("large"), fs::Permissions::from_mode(0o700)).unwrap();
    let expected = [("d1/e1/f1", News::Modified), ("large", News::Mode), ("link", News::Deleted), ("new", News::Added)];
    let changes = within(agent.changes(&job)).await.unwrap();
    assert_eq!(told(&changes), expected.map(|(path, news)| (Path::new(path), news)));
    assert!(within(agent.changes(&job)).await.unwrap().is_empty(), "it was noted");
    let unknown = within(agent.changes(rig.path("source"))).await.unwrap_err();
    assert!(matches!(unknown, TreeError::There(_)), "{unknown}");
    within(agent.note_tree(&source)).await.unwrap();
    fs::remove_dir_all(source.join("d2")).unwrap();
    assert!(!within(agent.changes(&source)).await.unwrap().is_empty());
    let nowhere = within(agent.note_tree(rig.path("nowhere"))).await.unwrap_err();
    assert!(matches!(nowhere, TreeError::There(failure) if failure.errno == 2));
}

#[tokio::test]
async fn what_stands_in_the_way_and_what_leads_out_is_refused() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let (source, job, outside) = (rig.path("source"), rig.path("job"), rig.path("outside"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&outside).unwrap();
    make(&source);
    put(&agent, &source, to(&job)).await.unwrap();
    let refused = put(&agent, &source, to(&job)).await.unwrap_err();
    assert!(matches!(refused, TreeError::There(_)), "{refused}");
    put(&agent, &source, PutTree { replace: true, ..to(&job) }).await.unwrap();
    symlink(&outside, job.join("way")).unwrap();
    for below in ["way", "../outside", "way/in"] {
        let out = PutTree { below: bytes_of(Path::new(below)), replace: true, ..to(&job) };
        assert!(matches!(put(&agent, &source, out).await, Err(TreeError::There(_))), "{below}");
        let blobs = BlobDir::open(rig.path("blobs")).unwrap();
        let from = TakeTree { directory: job.clone(), path: below.into(), most: MOST, ..TakeTree::default() };
        let taken = within(agent.take_tree(from, blobs, Arc::new(|_| ()))).await;
        // The link itself may be taken.
        assert!(taken.is_err() || below == "way" || taken.is_ok_and(|taken| taken.is_none()), "{below}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let relative = put(&agent, &source, to(Path::new("relative"))).await.unwrap_err();
    assert!(matches!(relative, TreeError::Agent(AgentError::Refused(_))), "{relative}");
    let missing: Arc<dyn BlobSource> = Arc::new(BlobDir::open(rig.path("blobs")).unwrap());
    let manifest = Arc::new(whole(&source).manifest().clone());
    let missing = within(agent.put_tree(to(&rig.path("other")), manifest, missing)).await.unwrap_err();
    assert!(matches!(missing, TreeError::Here(StreamError::Missing(_))), "{missing}");
}

#[tokio::test]
async fn what_changed_comes_back_as_an_archive() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let (source, job) = (rig.path("source"), rig.path("job"));
    fs::create_dir(&source).unwrap();
    make(&source);
    put(&agent, &source, to(&job)).await.unwrap();
    fs::write(job.join("d1/e1/f1"), "changed").unwrap();
    fs::create_dir_all(job.join("new/deep")).unwrap();
    fs::write(job.join("new/deep/file"), vec![5; 1 << 20]).unwrap();
    symlink("deep", job.join("new/link")).unwrap();
    fs::remove_file(job.join("large")).unwrap();
    let changes = within(agent.changes(&job)).await.unwrap();
    for kind in [ArchiveKind::TarZst, ArchiveKind::TarS2] {
        let packing = agent.archive(&job, changes.all(), kind, Vec::new());
        let (archive, packed) = within(packing).await.unwrap();
        assert_eq!((packed.files, packed.deleted), (3, 1));
        let out = rig.path(kind.as_str());
        let unpacked = unpack_modified(&archive[..], kind, &out).unwrap();
        assert_eq!(unpacked.deleted, [Path::new("large")]);
        assert_eq!(fs::read(out.join("d1/e1/f1")).unwrap(), b"changed");
        assert_eq!(fs::read(out.join("new/link/file")).unwrap(), vec![5; 1 << 20]);
    }
    let nowhere = within(agent.archive(rig.path("nowhere"), changes.all(), ArchiveKind::TarZst, Vec::new())).await;
    assert!(matches!(nowhere, Err(TreeError::There(_))));
}

#[tokio::test]
async fn what_is_touched_is_told_while_it_is() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let job = rig.path("job");
    fs::create_dir_all(job.join("dir")).unwrap();
    let mut watch = within(agent.watch(&job)).await.unwrap();
    fs::write(job.join("dir/file"), "x").unwrap();
    fs::create_dir_all(job.join("new/deep")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while !["dir/file", "new/deep"].iter().all(|path| seen.contains(Path::new(path))) {
        match within(watch.next()).await.unwrap() {
            Touched::Paths(paths) => seen.extend(paths),
            Touched::Missed => panic!("nothing was missed"),
        }
    }
    drop(watch);
    assert!(matches!(within(agent.watch(rig.path("nowhere"))).await, Err(TreeError::There(_))));
    drop(agent);
    rig.ended().await;
}

#[tokio::test]
async fn a_golden_tree_is_brought_up_to_date_by_what_differs_and_copied() {
    let rig = Rig::new().await;
    let agent = rig.agent().await;
    let (source, golden) = (rig.path("source"), rig.path("golden"));
    fs::create_dir(&source).unwrap();
    make(&source);
    let update = async |known: Option<Arc<executr_tree::Manifest>>| {
        let tree = whole(&source);
        let manifest = Arc::new(tree.manifest().clone());
        let known = move |digest| known.clone().filter(|known| known.outline_digest() == digest);
        let sent = within(agent.update_golden(&golden, Arc::clone(&manifest), Arc::new(tree), &known)).await.unwrap();
        (manifest, sent)
    };
    let (first, sent) = update(None).await;
    // What is compressed depends on who is slower.
    assert!(sent > 500, "all of it");
    let digest = first.outline_digest();
    within(agent.copy_golden(&golden, digest, to(&rig.path("job")))).await.unwrap();
    assert_eq!(whole(&rig.path("job")).digest(), whole(&source).digest());
    assert!(within(agent.changes(rig.path("job"))).await.unwrap().is_empty(), "it was noted");
    assert!(update(None).await.1 < 100, "it is there already");
    fs::write(source.join("d1/e1/f1"), "changed").unwrap();
    let (second, sent) = update(Some(Arc::clone(&first))).await;
    assert!(sent < 500, "{sent} bytes for one file");
    let refused = within(agent.copy_golden(&golden, digest, to(&rig.path("other")))).await.unwrap_err();
    assert!(matches!(refused, TreeError::There(_)), "it is another one now");
    within(agent.copy_golden(&golden, second.outline_digest(), to(&rig.path("other")))).await.unwrap();
    assert_eq!(whole(&rig.path("other")).digest(), whole(&source).digest());
    fs::write(source.join("d1/e1/f1"), "gone in a moment").unwrap();
    let tree = whole(&source);
    let manifest = Arc::new(tree.manifest().clone());
    let nothing: Arc<dyn BlobSource> = Arc::new(BlobDir::open(rig.path("blobs")).unwrap());
    let missing = within(agent.update_golden(&golden, manifest, nothing, &|_| None)).await.unwrap_err();
    assert!(matches!(missing, TreeError::Here(StreamError::Missing(_))), "{missing}");
    let (third, _) = update(None).await;
    within(agent.copy_golden(&golden, third.outline_digest(), to(&rig.path("third")))).await.unwrap();
    assert_eq!(whole(&rig.path("third")).digest(), whole(&source).digest());
}

/// A way to the agent that is cut after so many bytes, once.
struct CutDial {
    dial: UnixDial,
    left: Arc<AtomicI64>,
}

struct Cut {
    stream: Box<dyn Duplex>,
    left: Arc<AtomicI64>,
}

impl Cut {
    fn count(&self, bytes: usize) -> io::Result<()> {
        let before = self.left.fetch_sub(bytes as i64, Ordering::Relaxed);
        if before > 0 && before <= bytes as i64 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

#[tonic::async_trait]
impl Dial for CutDial {
    async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(Box::new(Cut { stream: self.dial.dial().await?, left: Arc::clone(&self.left) }))
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.count(buffer.filled().len() - before)?;
        }
        read
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.count(bytes.len())?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_transfer_that_is_cut_is_an_error_and_may_be_repeated() {
    let rig = Rig::with(crate::rig::program(), &["--patience", "20"]).await;
    let (source, job) = (rig.path("source"), rig.path("job"));
    fs::create_dir(&source).unwrap();
    make(&source);
    let left = Arc::new(AtomicI64::new(0));
    let dial = CutDial { dial: UnixDial(rig.socket()), left: Arc::clone(&left) };
    let agent = connect(Arc::new(dial), Duration::from_secs(20)).await.unwrap();
    let blobs = BlobDir::open(rig.path("blobs")).unwrap();
    for bytes in [100, 70_000, 2_000_000] {
        left.store(bytes, Ordering::Relaxed);
        let cut = put(&agent, &source, PutTree { replace: true, ..to(&job) }).await.unwrap_err();
        assert!(matches!(cut, TreeError::Agent(_)), "{cut}");
    }
    put(&agent, &source, PutTree { replace: true, ..to(&job) }).await.unwrap();
    assert_eq!(whole(&job).digest(), whole(&source).digest());
    let from = TakeTree { directory: job.clone(), most: MOST, ..TakeTree::default() };
    for bytes in [100, 70_000, 2_000_000] {
        left.store(bytes, Ordering::Relaxed);
        let cut = within(agent.take_tree(from.clone(), blobs.clone(), Arc::new(|_| ()))).await.unwrap_err();
        assert!(matches!(cut, TreeError::Agent(_)), "{cut}");
        assert!(blobs.hold(whole(&source).digest()).unwrap().is_none(), "nothing half is taken for whole");
    }
    let taken = within(agent.take_tree(from, blobs, Arc::new(|_| ()))).await.unwrap().unwrap();
    assert_eq!(taken.tree.digest, whole(&source).digest());
}
