//! Stores of one user that have their blobs in common.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_spec::{Digest, Timestamp};
use executr_store::sqlite::{SqliteOptions, SqliteStore};
use executr_store::{ManualClock, Store};
use tempfile::TempDir;
use uuid::Uuid;

const CONTENT: &[u8] = b"what both have";

struct Place {
    directory: TempDir,
    clock: ManualClock,
}

impl Place {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp(1_700_000_000_000_000));
        Self { directory: tempfile::tempdir().expect("a directory"), clock }
    }

    fn shared(&self, digest: Digest) -> PathBuf {
        self.directory.path().join("trees").join(digest.to_string())
    }

    fn own(&self, store: &str, digest: Digest) -> PathBuf {
        let text = digest.to_string();
        let (directory, name) = text.split_at(2);
        self.directory.path().join(store).join("blobs").join(directory).join(name)
    }

    async fn open(&self, name: &str) -> SqliteStore {
        let options = SqliteOptions {
            clock: Arc::new(self.clock.clone()),
            shared_blobs: Some(self.directory.path().join("trees")),
            ..SqliteOptions::new(self.directory.path().join(name))
        };
        SqliteStore::open(options).await.expect("opened")
    }

    /// Opens a store and puts a blob into it.
    async fn with_blob(&self, name: &str) -> (SqliteStore, Digest) {
        let store = self.open(name).await;
        put(&store).await;
        (store, Digest::of(CONTENT))
    }
}

async fn put(store: &SqliteStore) {
    let upload = Uuid::new_v4();
    store.append_blob(upload, 0, Bytes::from_static(CONTENT)).await.expect("appended");
    store.finish_blob(upload, Digest::of(CONTENT), CONTENT.len() as u64).await.expect("finished");
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
}

async fn content(store: &SqliteStore, digest: Digest) -> Option<Bytes> {
    store.read_blob(digest, 0).await.expect("read")
}

#[tokio::test]
async fn what_one_has_the_other_takes_over_without_a_copy() {
    let place = Place::new();
    let (one, digest) = place.with_blob("one").await;
    assert_eq!(fs::metadata(place.shared(digest)).expect("there").permissions().mode() & 0o777, 0o555);
    let other = place.open("other").await;
    assert_eq!(content(&other, digest).await, None, "nobody asked for it yet");
    assert_eq!(other.touch_blob(digest).await.expect("asked"), Some(CONTENT.len() as u64));
    assert_eq!(content(&other, digest).await.as_deref(), Some(CONTENT));
    assert_eq!(inode(&place.own("one", digest)), inode(&place.own("other", digest)));
    assert_eq!(inode(&place.own("one", digest)), inode(&place.shared(digest)));
    drop(one);
    // It comes once more where it is there: nothing changes.
    put(&other).await;
    assert_eq!(inode(&place.own("other", digest)), inode(&place.shared(digest)));
}

#[tokio::test]
async fn nobody_takes_a_blob_from_another() {
    let place = Place::new();
    let (one, digest) = place.with_blob("one").await;
    let other = place.open("other").await;
    other.touch_blob(digest).await.expect("asked");
    fs::remove_file(place.shared(digest)).expect("removed");
    place.clock.advance(Duration::from_secs(60));
    assert_eq!(one.delete_blobs(one.now().await.expect("the time")).await.expect("deleted"), 1);
    assert_eq!(content(&one, digest).await, None);
    assert_eq!(one.touch_blob(digest).await.expect("asked"), None, "it is shared no more");
    assert_eq!(content(&other, digest).await.as_deref(), Some(CONTENT));
    // Again it comes by itself, and is shared again.
    put(&one).await;
    assert_eq!(inode(&place.own("one", digest)), inode(&place.shared(digest)));
}

#[tokio::test]
async fn a_torn_file_is_replaced_and_what_is_no_file_is_not_taken() {
    let place = Place::new();
    let (one, digest) = place.with_blob("one").await;
    let own = place.own("one", digest);
    fs::remove_file(&own).expect("removed");
    fs::write(&own, b"what").expect("written");
    assert_eq!(one.touch_blob(digest).await.expect("asked"), Some(CONTENT.len() as u64));
    assert_eq!(content(&one, digest).await.as_deref(), Some(CONTENT));
    let other = Digest::of(b"other");
    fs::write(place.directory.path().join("elsewhere"), "other").expect("written");
    std::os::unix::fs::symlink("../elsewhere", place.shared(other)).expect("linked");
    assert_eq!(one.touch_blob(other).await.expect("asked"), None);
}

#[tokio::test]
async fn a_shared_file_that_somebody_changed_is_not_taken_and_comes_anew() {
    let place = Place::new();
    let (one, digest) = place.with_blob("one").await;
    let other = place.open("other").await;
    // Another file of the same length.
    fs::remove_file(place.shared(digest)).expect("removed");
    fs::write(place.shared(digest), b"WHAT BOTH HAVE").expect("written");
    assert_eq!(other.touch_blob(digest).await.expect("asked"), None);
    assert!(!place.own("other", digest).exists());
    put(&other).await;
    assert_eq!(fs::read(place.shared(digest)).expect("there"), CONTENT);
    // What one has is never replaced by what is worse.
    fs::remove_file(place.shared(digest)).expect("removed");
    fs::write(place.shared(digest), b"worse").expect("written");
    assert_eq!(one.touch_blob(digest).await.expect("asked"), Some(CONTENT.len() as u64));
    assert_eq!(content(&one, digest).await.as_deref(), Some(CONTENT));
    let left = fs::read_dir(place.directory.path().join("other/uploads")).expect("readable").count();
    assert_eq!(left, 0, "no name is left behind");
}
