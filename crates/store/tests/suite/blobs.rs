//! Blobs and uploads.

use std::time::Duration;

use bytes::Bytes;
use executr_spec::Digest;
use executr_store::{NewJob, StoreError};
use uuid::Uuid;

use super::Harness;
use super::stage::{Stage, job};

const HOUR: Duration = Duration::from_secs(3_600);

impl<H: Harness> Stage<H> {
    async fn upload(&self, upload: Uuid, offset: u64, bytes: &'static [u8]) -> Result<(), StoreError> {
        self.store.append_blob(upload, offset, Bytes::from_static(bytes)).await
    }

    async fn blob(&self, bytes: &'static [u8]) -> Digest {
        let (upload, digest) = (Uuid::new_v4(), Digest::of(bytes));
        self.upload(upload, 0, bytes).await.expect("uploaded");
        self.store.finish_blob(upload, digest, bytes.len() as u64).await.expect("finished");
        digest
    }

    async fn read_blob(&self, digest: Digest) -> Option<Vec<u8>> {
        let mut all = vec![];
        loop {
            let part = self.store.read_blob(digest, all.len() as u64).await.expect("read")?;
            if part.is_empty() {
                return Some(all);
            }
            all.extend_from_slice(&part);
        }
    }
}

pub(crate) async fn uploaded_in_pieces<H: Harness>(stage: Stage<H>) {
    let upload = Uuid::new_v4();
    let bytes: Vec<u8> = (0..2_500_000_u32).map(|n| (n % 253) as u8).collect();
    let digest = Digest::of(&bytes);
    for (n, part) in bytes.chunks(1_000_000).enumerate() {
        let part = Bytes::copy_from_slice(part);
        stage.store.append_blob(upload, n as u64 * 1_000_000, part).await.expect("appended");
    }
    assert_eq!(stage.store.touch_blob(digest).await.expect("touched"), None, "not before it is finished");
    stage.store.finish_blob(upload, digest, 2_500_000).await.expect("finished");
    assert_eq!(stage.store.touch_blob(digest).await.expect("touched"), Some(2_500_000));
    assert!(stage.read_blob(digest).await.expect("a blob") == bytes);
    let part = stage.store.read_blob(digest, 2_400_000).await.expect("read").expect("a blob");
    assert!(part[..] == bytes[2_400_000..]);
    assert_eq!(stage.store.read_blob(Digest::of(b"other"), 0).await.expect("read"), None);
}

pub(crate) async fn a_wrong_offset_is_refused<H: Harness>(stage: Stage<H>) {
    let upload = Uuid::new_v4();
    assert!(matches!(stage.upload(upload, 2, b"x").await, Err(StoreError::UploadGap { end: 0, offset: 2 })));
    stage.upload(upload, 0, b"abc").await.expect("uploaded");
    for offset in [2, 4] {
        assert!(matches!(stage.upload(upload, offset, b"x").await, Err(StoreError::UploadGap { end: 3, .. })));
    }
    stage.upload(upload, 3, b"def").await.expect("uploaded");
    stage.store.finish_blob(upload, Digest::of(b"abcdef"), 6).await.expect("finished");
    assert_eq!(stage.read_blob(Digest::of(b"abcdef")).await.expect("a blob"), b"abcdef");
}

pub(crate) async fn starting_anew<H: Harness>(stage: Stage<H>) {
    let upload = Uuid::new_v4();
    stage.upload(upload, 0, b"wrong").await.expect("uploaded");
    stage.upload(upload, 0, b"ok").await.expect("uploaded");
    stage.store.finish_blob(upload, Digest::of(b"ok"), 2).await.expect("finished");
    assert_eq!(stage.read_blob(Digest::of(b"ok")).await.expect("a blob"), b"ok");
}

pub(crate) async fn a_wrong_size_is_refused<H: Harness>(stage: Stage<H>) {
    let upload = Uuid::new_v4();
    stage.upload(upload, 0, b"abc").await.expect("uploaded");
    let wrong = stage.store.finish_blob(upload, Digest::of(b"abc"), 4).await;
    assert!(matches!(wrong, Err(StoreError::UploadGap { end: 3, offset: 4 })));
    assert_eq!(stage.store.touch_blob(Digest::of(b"abc")).await.expect("touched"), None);
    let unknown = stage.store.finish_blob(Uuid::new_v4(), Digest::of(b"abc"), 3).await;
    assert!(matches!(unknown, Err(StoreError::UploadGap { end: 0, offset: 3 })));
}

pub(crate) async fn an_existing_blob_stays<H: Harness>(stage: Stage<H>) {
    let digest = stage.blob(b"abc").await;
    assert_eq!(stage.blob(b"abc").await, digest);
    assert_eq!(stage.read_blob(digest).await.expect("a blob"), b"abc");
    // The answer of the first finishing may have been lost.
    stage.store.finish_blob(Uuid::new_v4(), digest, 3).await.expect("finished");
}

pub(crate) async fn empty_blobs<H: Harness>(stage: Stage<H>) {
    let digest = stage.blob(b"").await;
    assert_eq!(stage.store.touch_blob(digest).await.expect("touched"), Some(0));
    assert_eq!(stage.read_blob(digest).await.expect("a blob"), b"");
}

pub(crate) async fn deleted_when_old_and_unnamed<H: Harness>(stage: Stage<H>) {
    let [named, touched, old] = [stage.blob(b"named").await, stage.blob(b"touched").await, stage.blob(b"old").await];
    let id = stage.submit_one(NewJob { blobs: vec![named], ..job() }).await;
    stage.pass(HOUR).await;
    stage.store.touch_blob(touched).await.expect("touched");
    let before = stage.now().await.minus(HOUR / 2);
    assert_eq!(stage.store.delete_blobs(before).await.expect("deleted"), 1);
    assert_eq!(stage.read_blob(old).await, None);
    assert!(stage.read_blob(named).await.is_some() && stage.read_blob(touched).await.is_some());
    stage.cancel_waiting(id).await;
    assert_eq!(stage.store.delete_blobs(before).await.expect("deleted"), 0, "as long as the job is kept");
    stage.pass(HOUR).await;
    stage.store.delete_final(stage.now().await, 9).await.expect("deleted");
    assert_eq!(stage.store.delete_blobs(stage.now().await).await.expect("deleted"), 2);
}

pub(crate) async fn many_at_once_are_deleted<H: Harness>(stage: Stage<H>) {
    static BYTES: [u8; 70] = [7; 70];
    for length in 0..BYTES.len() {
        stage.blob(&BYTES[..length]).await;
        stage.upload(Uuid::new_v4(), 0, b"abc").await.expect("uploaded");
    }
    let named = stage.blob(b"named").await;
    stage.submit_one(NewJob { blobs: vec![named], ..job() }).await;
    stage.pass(HOUR).await;
    assert_eq!(stage.store.delete_blobs(stage.now().await).await.expect("deleted"), 140);
    assert_eq!(stage.store.delete_blobs(stage.now().await).await.expect("deleted"), 0);
    assert!(stage.read_blob(named).await.is_some());
}

pub(crate) async fn uploads_grow_old<H: Harness>(stage: Stage<H>) {
    let upload = Uuid::new_v4();
    stage.upload(upload, 0, b"abc").await.expect("uploaded");
    assert_eq!(stage.store.delete_blobs(stage.now().await.minus(HOUR)).await.expect("deleted"), 0);
    stage.pass(HOUR).await;
    assert_eq!(stage.store.delete_blobs(stage.now().await).await.expect("deleted"), 1);
    assert!(matches!(stage.upload(upload, 3, b"x").await, Err(StoreError::UploadGap { end: 0, .. })));
}

pub(crate) async fn dropped_uploads_are_gone<H: Harness>(stage: Stage<H>) {
    let upload = Uuid::new_v4();
    stage.upload(upload, 0, b"abc").await.expect("uploaded");
    stage.store.drop_blob_upload(upload).await.expect("dropped");
    stage.store.drop_blob_upload(upload).await.expect("dropped");
    assert!(matches!(stage.upload(upload, 3, b"x").await, Err(StoreError::UploadGap { end: 0, .. })));
}
