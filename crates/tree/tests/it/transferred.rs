//! Trees on their way to a coordinator and back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use executr_api::{ApiError, ByteStream, ErrorCode};
use executr_spec::Digest;
use executr_tree::wire::{Progress, RemoteBlobs, TransferError, fetch, push, save};
use executr_tree::{BlobSource, Manifest, SnapshotOptions};
use futures_util::{StreamExt, stream};

use crate::directories::Scene;

/// A coordinator that has blobs in memory.
#[derive(Default)]
struct Far {
    blobs: Mutex<BTreeMap<Digest, Bytes>>,
    /// The most pieces it gives of a blob before it breaks off; then one more of the next.
    breaks_after: Mutex<Option<usize>>,
    given: AtomicU64,
}

#[async_trait]
impl RemoteBlobs for Far {
    async fn missing(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        let blobs = self.blobs.lock().unwrap();
        Ok(digests.into_iter().filter(|digest| !blobs.contains_key(digest)).collect())
    }

    async fn put(&self, digest: Digest, mut bytes: ByteStream) -> Result<(), ApiError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = bytes.next().await {
            whole.extend_from_slice(&piece?);
        }
        if Digest::of(&whole) != digest {
            return Err(ApiError::new(ErrorCode::BadRequest, "other bytes"));
        }
        self.blobs.lock().unwrap().insert(digest, whole.freeze());
        Ok(())
    }

    async fn read(&self, digest: Digest, offset: u64) -> Result<ByteStream, ApiError> {
        let blob = self.blobs.lock().unwrap().get(&digest).cloned();
        let blob = blob.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "no such blob"))?;
        let rest = blob.slice(offset as usize..);
        self.given.fetch_add(rest.len() as u64, Ordering::Relaxed);
        let pieces: Vec<_> = rest.chunks(700_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let broken = self.breaks_after.lock().unwrap().take();
        let end = broken.map(|_| Err(ApiError::new(ErrorCode::Unavailable, "broken off")));
        let pieces = pieces.into_iter().take(broken.unwrap_or(usize::MAX));
        Ok(stream::iter(pieces.chain(end).collect::<Vec<_>>()).boxed())
    }
}

fn scene() -> Scene {
    let scene = Scene::new();
    for n in 0..400_u32 {
        scene.write(format!("d{}/f{n}", n % 11), &n.to_be_bytes().repeat(1_000));
    }
    scene.write("large", &(0..900_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<_>>());
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_goes_there_and_comes_back_and_only_what_is_new_goes_again() {
    let scene = scene();
    let far = Arc::new(Far::default());
    let remote: Arc<dyn RemoteBlobs> = far.clone();
    let tree = Arc::new(scene.snapshot());
    let source: Arc<dyn BlobSource> = tree.clone();
    let seen = Mutex::new(Progress::default());
    let watch = |progress| *seen.lock().unwrap() = progress;
    let sent = push(&remote, &source, tree.digest(), tree.manifest().blobs(), &watch).await.unwrap();
    assert_eq!(sent.blobs, tree.manifest().blobs().len() as u64 + 1);
    assert_eq!(sent.bytes, tree.manifest().size() + tree.encoded().len() as u64);
    assert_eq!(*seen.lock().unwrap(), sent);
    let again = push(&remote, &source, tree.digest(), tree.manifest().blobs(), &watch).await.unwrap();
    assert_eq!(again, Progress::default());

    scene.write("d3/f3", b"changed");
    let changed = save(&remote, scene.source(), SnapshotOptions::everything(), &|_| {}).await.unwrap();
    assert_eq!(changed.sent.blobs, 2, "one pack and the manifest");
    assert_eq!(changed.digest, scene.snapshot().digest());

    let fetched = fetch(&remote, &scene.blobs, tree.digest(), &|_| {}).await.unwrap();
    assert_eq!(&fetched.manifest, tree.manifest());
    assert_eq!(fetched.brought.blobs, sent.blobs);
    scene.place(&fetched.manifest, "copy");
    let second = fetch(&remote, &scene.blobs, changed.digest, &|_| {}).await.unwrap();
    assert_eq!(second.brought.blobs, 2);
    drop(fetched);
    let left = scene.blobs.trim(0).unwrap();
    assert_eq!(left, changed.manifest.size() + changed.manifest.encode().len() as u64, "what is in use stays");
    drop(second);
    assert_eq!(scene.blobs.trim(0).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_is_gone_on_with() {
    let scene = scene();
    let far = Arc::new(Far::default());
    let remote: Arc<dyn RemoteBlobs> = far.clone();
    let saved = save(&remote, scene.source().join("large"), SnapshotOptions::everything(), &|_| {}).await.unwrap();
    // The manifest is there, of the file two pieces come.
    let mut partial = scene.blobs.bring(saved.digest).unwrap().unwrap();
    partial.append(&saved.manifest.encode()).unwrap();
    partial.commit().unwrap();
    *far.breaks_after.lock().unwrap() = Some(2);
    let error = fetch(&remote, &scene.blobs, saved.digest, &|_| {}).await.unwrap_err();
    assert!(matches!(&error, TransferError::Api(error) if error.code == ErrorCode::Unavailable), "{error}");
    far.given.store(0, Ordering::Relaxed);
    let fetched = fetch(&remote, &scene.blobs, saved.digest, &|_| {}).await.unwrap();
    assert_eq!(far.given.load(Ordering::Relaxed), saved.manifest.size() - 1_400_000);
    scene.place(&fetched.manifest, "restored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_who_want_the_same_tree_bring_it_once() {
    let scene = scene();
    let far = Arc::new(Far::default());
    let remote: Arc<dyn RemoteBlobs> = far.clone();
    let saved = save(&remote, scene.source(), SnapshotOptions::everything(), &|_| {}).await.unwrap();
    let fetches = (0..4).map(|_| {
        let (remote, blobs) = (Arc::clone(&remote), scene.blobs.clone());
        tokio::spawn(async move { fetch(&remote, &blobs, saved.digest, &|_| {}).await.map(|fetched| fetched.manifest) })
    });
    for fetched in fetches.collect::<Vec<_>>() {
        assert_eq!(fetched.await.unwrap().unwrap(), saved.manifest);
    }
    assert_eq!(far.given.load(Ordering::Relaxed), saved.sent.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_tree_or_not_there_is_said() {
    let scene = Scene::new();
    let far = Arc::new(Far::default());
    let remote: Arc<dyn RemoteBlobs> = far.clone();
    let nothing = fetch(&remote, &scene.blobs, Digest::of(b"none"), &|_| {}).await.unwrap_err();
    assert!(matches!(nothing, TransferError::Api(error) if error.code == ErrorCode::NotFound));
    let text = Bytes::from_static(b"some text");
    far.blobs.lock().unwrap().insert(Digest::of(&text), text.clone());
    let no_tree = fetch(&remote, &scene.blobs, Digest::of(&text), &|_| {}).await.unwrap_err();
    assert!(matches!(no_tree, TransferError::Manifest { .. }));
    // A blob of the tree is gone from the far side.
    scene.write("a", b"a");
    let saved = save(&remote, scene.source(), SnapshotOptions::everything(), &|_| {}).await.unwrap();
    far.blobs.lock().unwrap().remove(&Digest::of(b"a"));
    let incomplete = fetch(&remote, &scene.blobs, saved.digest, &|_| {}).await.unwrap_err();
    assert!(matches!(incomplete, TransferError::Api(error) if error.code == ErrorCode::NotFound));
    // Bytes that are others than their name says.
    far.blobs.lock().unwrap().insert(Digest::of(b"a"), Bytes::from_static(b"b"));
    let wrong = fetch(&remote, &scene.blobs, saved.digest, &|_| {}).await.unwrap_err();
    assert!(matches!(wrong, TransferError::Blobs(_)), "{wrong}");
    assert!(Manifest::parse(&scene.blobs.read(saved.digest).unwrap().unwrap()).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_changed_after_the_snapshot_is_not_sent_for_what_it_was() {
    let scene = Scene::new();
    scene.write("a", b"first");
    let remote: Arc<dyn RemoteBlobs> = Arc::new(Far::default());
    let tree = Arc::new(scene.snapshot());
    let source: Arc<dyn BlobSource> = tree.clone();
    for (content, code) in [(&b"other"[..], ErrorCode::BadRequest), (b"a", ErrorCode::Conflict)] {
        scene.write("a", content);
        let error = push(&remote, &source, tree.digest(), tree.manifest().blobs(), &|_| {}).await.unwrap_err();
        assert!(matches!(&error, TransferError::Api(error) if error.code == code), "{error}");
    }
    assert_eq!(remote.missing(vec![tree.digest()]).await.unwrap().len(), 1, "nor does the manifest go");
}
