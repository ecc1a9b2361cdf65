//! Blobs, access tokens, and jobs' own tokens.

use std::time::Duration;

use bytes::Bytes;
use executr_api::{ApiError, Client, CreateToken, ErrorCode, Role, WorkerApi};
use executr_coordinator::{Coordinator, Options, Unobserved};
use executr_spec::{Digest, Timestamp, TokenId};
use executr_store::Store;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{advance, sleep};

use crate::support::{Worker, client, options, settle, start, store, submit_plain};

fn parts(bytes: &[u8], size: usize) -> executr_api::ByteStream {
    let parts: Vec<Result<Bytes, ApiError>> = bytes.chunks(size).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    stream::iter(parts).boxed()
}

async fn read(coordinator: &Coordinator, digest: Digest, offset: u64) -> Vec<u8> {
    let parts: Vec<Bytes> = coordinator.blob(digest, offset, "").await.unwrap().try_collect().await.unwrap();
    parts.concat()
}

#[tokio::test(start_paused = true)]
async fn a_blob_reads_back_from_any_offset() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    for size in [0, 1, (1 << 20) - 1, 1 << 20, (5 << 20) / 2] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let digest = Digest::of(&bytes);
        assert!(!client.has_blob(digest).await.unwrap());
        client.put_blob(digest, parts(&bytes, 100_000)).await.unwrap();
        assert_eq!(coordinator.blob_size(digest).await.unwrap(), Some(size as u64));
        for offset in [0, size / 2, size] {
            assert!(read(&coordinator, digest, offset as u64).await == bytes[offset..], "{size} from {offset}");
        }
    }
    let missing = coordinator.blob(Digest::of(b"missing"), 0, "").await;
    assert_eq!(missing.err().unwrap().code, ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_is_damaged_too_large_or_broken_off_is_not_there() {
    let store = store();
    let options = Options { max_blob_bytes: 1 << 20, ..options() };
    let coordinator = Coordinator::start(store.clone(), options, std::sync::Arc::new(Unobserved)).await.unwrap();
    let client = client(&coordinator);
    let digest = Digest::of(b"good");
    let error = client.put_blob(digest, parts(b"evil", 2)).await.unwrap_err();
    assert_eq!((error.code, &error.context["sha256"]), (ErrorCode::BadRequest, &Digest::of(b"evil").to_string()));
    let large = vec![0; (1 << 20) + 1];
    let error = client.put_blob(Digest::of(&large), parts(&large, 65_536)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
    let broken = stream::iter([Ok(Bytes::from_static(b"go")), Err(ApiError::new(ErrorCode::Unavailable, "gone"))]);
    assert_eq!(client.put_blob(digest, broken.boxed()).await.unwrap_err().code, ErrorCode::Unavailable);
    assert!(!client.has_blob(digest).await.unwrap());
    settle().await;
    assert_eq!(store.take_calls()["drop_blob_upload"], 3, "nothing is left of them");
}

#[tokio::test(start_paused = true)]
async fn blobs_go_when_nobody_asked_for_them_for_long() {
    let store = store();
    let (blob_keep, cleanup_interval) = (Duration::from_secs(1_000), Duration::from_secs(50));
    let options = Options { blob_keep, cleanup_interval, ..options() };
    let coordinator = Coordinator::start(store.clone(), options, std::sync::Arc::new(Unobserved)).await.unwrap();
    let client = client(&coordinator);
    let [kept, asked, left] = [b"kept", b"askd", b"left"].map(|bytes| (bytes, Digest::of(bytes)));
    for (bytes, digest) in [kept, asked, left] {
        client.put_blob(digest, parts(bytes, 4)).await.unwrap();
    }
    let digest = kept.1;
    let job = format!(r#"{{"type":"t","binary_url":"blob:{digest}","binary_sha256":"{digest}"}}"#);
    client.submit(crate::support::job(&job)).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert!(client.has_blob(asked.1).await.unwrap());
    sleep(Duration::from_secs(600)).await;
    for ((_, digest), there) in [(kept, true), (asked, true), (left, false)] {
        assert_eq!(store.read_blob(digest, 0).await.unwrap().is_some(), there, "{digest}");
    }
}

#[tokio::test(start_paused = true)]
async fn missing_blobs_are_named_in_order_and_the_others_are_kept() {
    let store = store();
    let (blob_keep, cleanup_interval) = (Duration::from_secs(1_000), Duration::from_secs(50));
    let options = Options { blob_keep, cleanup_interval, ..options() };
    let coordinator = Coordinator::start(store.clone(), options, std::sync::Arc::new(Unobserved)).await.unwrap();
    let client = client(&coordinator);
    let [here, one, two] = [b"here", b"one.", b"two."].map(|bytes| Digest::of(bytes));
    client.put_blob(here, parts(b"here", 4)).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(client.missing_blobs(vec![two, here, one, two]).await.unwrap(), [two, one, two]);
    assert_eq!(client.missing_blobs(vec![]).await.unwrap(), []);
    sleep(Duration::from_secs(600)).await;
    assert!(store.read_blob(here, 0).await.unwrap().is_some(), "asking kept it");
    let many = vec![one; executr_api::MAX_ASKED_BLOBS + 1];
    assert_eq!(client.missing_blobs(many).await.unwrap_err().code, ErrorCode::BadRequest);
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_made_is_taken_under_its_lease_alone() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 1).await;
    let mut worker = Worker::new("w", 1);
    let fence = worker.exchange(&coordinator).await.leases[0].fence;
    let digest = Digest::of(b"made");
    assert_eq!(coordinator.missing_blobs(&fence, "", vec![digest]).await.unwrap(), [digest]);
    let other = executr_api::Fence { attempt: fence.attempt + 1, ..fence };
    let refused = coordinator.put_blob(&other, "", digest, parts(b"made", 1)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::LeaseLost);
    coordinator.put_blob(&fence, "", digest, parts(b"made", 1)).await.unwrap();
    assert_eq!(coordinator.missing_blobs(&fence, "", vec![digest]).await.unwrap(), []);

    // The lease ends while the last bytes are on their way.
    let late = Digest::of(b"late");
    let (send, receive) = tokio::sync::oneshot::channel();
    let bytes = stream::once(async move {
        receive.await.unwrap();
        Ok(Bytes::from_static(b"late"))
    });
    let put = coordinator.put_blob(&fence, "", late, bytes.boxed());
    let end = async {
        worker.end_all();
        worker.exchange(&coordinator).await;
        send.send(()).unwrap();
    };
    let (put, ()) = tokio::join!(put, end);
    assert_eq!(put.unwrap_err().code, ErrorCode::LeaseLost);
    assert_eq!(coordinator.missing_blobs(&fence, "", vec![late]).await.unwrap_err().code, ErrorCode::LeaseLost);
    assert!(!client(&coordinator).has_blob(late).await.unwrap());
}

fn asked(role: Role) -> CreateToken {
    CreateToken { role, name: Some("ci".to_owned()), tenant: None, expires_at: None }
}

#[tokio::test(start_paused = true)]
async fn a_token_opens_until_it_is_revoked_here_at_once_elsewhere_within_seconds() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    assert!(!one.has_tokens().await.unwrap());
    let token = client(&one).create_token(asked(Role::Submit)).await.unwrap();
    assert!(one.has_tokens().await.unwrap());
    for coordinator in [&one, &other] {
        let view = coordinator.authenticate(&token.secret).await.unwrap().unwrap();
        assert_eq!(view, token.token);
    }
    assert_eq!(client(&one).tokens().await.unwrap(), std::slice::from_ref(&token.token));
    client(&one).revoke_token(token.token.id).await.unwrap();
    assert_eq!(one.authenticate(&token.secret).await.unwrap(), None);
    assert!(other.authenticate(&token.secret).await.unwrap().is_some(), "believed for 5 s");
    advance(Duration::from_secs(5)).await;
    assert_eq!(other.authenticate(&token.secret).await.unwrap(), None);
    let again = client(&one).revoke_token(token.token.id).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::NotFound);
    assert_eq!(client(&one).revoke_token(TokenId(uuid::Uuid::nil())).await.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn the_store_is_not_asked_at_every_request_nor_made_to_by_guessing() {
    let store = store();
    let coordinator = start(&store).await;
    let token = client(&coordinator).create_token(asked(Role::Admin)).await.unwrap();
    store.take_calls();
    for _ in 0..100 {
        assert!(coordinator.authenticate(&token.secret).await.unwrap().is_some());
        assert!(coordinator.authenticate("executr_guess").await.unwrap().is_none());
    }
    assert_eq!(store.take_calls()["token_by_hash"], 2);
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_opens_nothing_also_while_it_is_remembered() {
    let store = store();
    let coordinator = start(&store).await;
    let now = store.now().await.unwrap();
    let expires_at = Some(now.plus(Duration::from_secs(2)));
    let token = client(&coordinator).create_token(CreateToken { expires_at, ..asked(Role::Read) }).await.unwrap();
    assert!(coordinator.authenticate(&token.secret).await.unwrap().is_some());
    advance(Duration::from_secs(2)).await;
    assert_eq!(coordinator.authenticate(&token.secret).await.unwrap(), None);
    assert!(coordinator.has_tokens().await.unwrap(), "an expired token doesn't open the server to everybody");
    for wrong in [
        CreateToken { expires_at: Some(Timestamp(0)), ..asked(Role::Read) },
        CreateToken { name: Some(String::new()), ..asked(Role::Read) },
    ] {
        assert_eq!(client(&coordinator).create_token(wrong).await.unwrap_err().code, ErrorCode::BadRequest);
    }
}

#[tokio::test(start_paused = true)]
async fn a_jobs_own_token_opens_its_job_and_dies_with_the_lease() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 2).await;
    let mut worker = Worker::new("w", 2);
    let orders = worker.exchange(&coordinator).await;
    let lease = &orders.leases[0];
    assert_eq!(coordinator.job_token_opens(ids[0], &lease.token).await.unwrap(), Some(lease.fence));
    assert_eq!(coordinator.job_token_opens(ids[1], &lease.token).await.unwrap(), None);
    let (start, _) = lease.token.rsplit_once('-').unwrap();
    let forged = format!("{start}-{}", uuid::Uuid::new_v4().simple());
    for wrong in [forged.as_str(), "", "executr-job-", "executr_x"] {
        assert_eq!(coordinator.job_token(wrong).await.unwrap(), None, "{wrong}");
    }
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(coordinator.job_token_opens(ids[0], &lease.token).await.unwrap(), None);
}
