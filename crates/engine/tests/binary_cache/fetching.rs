//! How programs come.

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use executr_api::WorkerApi;
use executr_engine::binary_cache::CacheError;

use crate::web::{Act, Blobs, Web, binary, cache, content, counted, nobody};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_comes_once_and_is_found_then() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(300_000);
    let web = Web::serve(&program).await;
    let cache = cache(temp.path(), |_| ());
    let step = binary(web.url("/p"), &program);
    for _ in 0..3 {
        let cached = cache.fetch(&step, &nobody(), "").await.unwrap();
        assert_eq!(std::fs::read(cached.path()).unwrap(), program);
    }
    assert_eq!(web.asked().len(), 1);
    let counters = counted(&cache);
    assert_eq!((counters.cache_hits, counters.cache_misses, counters.downloads), (2, 1, 1));
    assert_eq!(counters.cache_bytes, 300_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_want_it_at_once_share_one_download() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(100_000);
    let web = Web::serve(&program).await;
    // Two caches on one directory stand for two worker processes.
    let caches = [cache(temp.path(), |_| ()), cache(temp.path(), |_| ())];
    let step = binary(web.url("/p"), &program);
    let gate = web.gate();
    let closed = gate.lock().await;
    let api = nobody();
    let all = futures_util::future::join_all((0..20).map(|n| caches[n % 2].fetch(&step, &api, "")));
    let opening = async {
        while web.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        drop(closed);
    };
    let (all, ()) = tokio::join!(all, opening);
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(web.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_download_goes_on_where_it_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(400_000);
    let web = Web::serve(&program).await;
    web.then([Act::BreakAfter(150_000), Act::Status(StatusCode::SERVICE_UNAVAILABLE)]);
    let cache = cache(temp.path(), |_| ());
    let cached = cache.fetch(&binary(web.url("/p"), &program), &nobody(), "").await.unwrap();
    assert_eq!(std::fs::read(cached.path()).unwrap(), program);
    let asked = web.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].range, None);
    let last = asked.last().unwrap();
    assert_eq!(last.if_range.as_deref(), Some("\"1\""));
    assert!(last.range.as_deref().is_some_and(|range| range != "bytes=0-"), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_process_goes_on_where_a_killed_one_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(400_000);
    let web = Web::serve(&program).await;
    // What a process leaves that is killed in the middle of a download, and the file it never gets to use.
    let first = cache(temp.path(), |_| ());
    let blobs = executr_tree::BlobDir::open(temp.path().join("cache")).unwrap();
    let step = binary(web.url("/p"), &program);
    let mut partial = blobs.bring(step.sha256).unwrap().unwrap();
    partial.set_validator("\"1\"").unwrap();
    partial.append(&program[..123_456]).unwrap();
    drop((partial, first));

    let cached = cache(temp.path(), |_| ()).fetch(&step, &nobody(), "").await.unwrap();
    assert_eq!(std::fs::read(cached.path()).unwrap(), program);
    assert_eq!(web.asked()[0].range.as_deref(), Some("bytes=123456-"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_changed_meanwhile_is_fetched_whole() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(400_000);
    let web = Web::serve(&vec![9; 400_000]).await;
    let blobs = executr_tree::BlobDir::open(temp.path().join("cache")).unwrap();
    let step = binary(web.url("/p"), &program);
    let mut partial = blobs.bring(step.sha256).unwrap().unwrap();
    partial.set_validator("\"1\"").unwrap();
    partial.append(&[9; 1_000]).unwrap();
    drop(partial);
    web.change_content(&program, "\"2\"");
    let cached = cache(temp.path(), |_| ()).fetch(&step, &nobody(), "").await.unwrap();
    assert_eq!(std::fs::read(cached.path()).unwrap(), program);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_download_of_a_lying_server_is_tried_from_the_start() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(10_000);
    let web = Web::serve(&program).await;
    let blobs = executr_tree::BlobDir::open(temp.path().join("cache")).unwrap();
    let step = binary(web.url("/p"), &program);
    let mut partial = blobs.bring(step.sha256).unwrap().unwrap();
    // Said to be of the same version, and isn't.
    partial.set_validator("\"1\"").unwrap();
    partial.append(&[9; 1_000]).unwrap();
    drop(partial);
    let cached = cache(temp.path(), |_| ()).fetch(&step, &nobody(), "").await.unwrap();
    assert_eq!(std::fs::read(cached.path()).unwrap(), program);
    assert_eq!(web.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_else_than_asked_for_is_refused_for_good_and_names_both() {
    let temp = tempfile::tempdir().unwrap();
    let web = Web::serve(b"what came").await;
    let cache = cache(temp.path(), |_| ());
    let step = binary(web.url("/p?secret=1"), b"what was asked for");
    let error = cache.fetch(&step, &nobody(), "").await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_final());
    for part in [step.sha256.to_string(), executr_spec::Digest::of(b"what came").to_string()] {
        assert!(text.contains(&part), "{text}");
    }
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(counted(&cache).downloads, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_followed_up_to_ten() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(1_000);
    let web = Web::serve(&program).await;
    let cache = cache(temp.path(), |_| ());
    web.then((0..10).map(|n| Act::Redirect(web.url(&format!("/r{n}")))));
    cache.fetch(&binary(web.url("/p"), &program), &nobody(), "").await.unwrap();
    assert_eq!(web.asked().len(), 11);

    web.then((0..50).map(|n| Act::Redirect(web.url(&format!("/r{n}")))));
    let error = cache.fetch(&binary(web.url("/p"), b"other"), &nobody(), "").await.unwrap_err();
    assert!(error.to_string().contains("more than 10"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_refuses_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let web = Web::serve(b"").await;
    let cache = cache(temp.path(), |_| ());
    web.then([Act::Status(StatusCode::NOT_FOUND)]);
    let error = cache.fetch(&binary(web.url("/p"), b"x"), &nobody(), "").await.unwrap_err();
    assert!(!error.is_final() && error.to_string().contains("404"), "{error}");
    assert_eq!(web.asked().len(), 1, "asking again is the retry's business");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_larger_than_allowed_is_taken() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(10_000);
    let web = Web::serve(&program).await;
    let cache = cache(temp.path(), |options| options.max_binary_bytes = 9_999);
    let path = temp.path().join("program");
    std::fs::write(&path, &program).unwrap();
    let api: Arc<dyn WorkerApi> = Arc::new(Blobs(Bytes::from(program.clone())));
    let digest = executr_spec::Digest::of(&program);
    for url in [web.url("/p"), format!("file://{}", path.display()), format!("blob:{digest}")] {
        let error = cache.fetch(&binary(&url, &program), &api, "token").await.unwrap_err();
        assert!(error.is_final() && error.to_string().contains("larger than"), "{url}: {error}");
    }
    let left = std::fs::read_dir(temp.path().join("cache/.partial")).unwrap().count();
    assert_eq!(left, 0, "what is refused for good isn't kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_blobs_come_too() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(50_000);
    let cache = cache(temp.path(), |_| ());
    let path = temp.path().join("a program");
    std::fs::write(&path, &program).unwrap();
    let url = format!("file://{}", path.display()).replace(' ', "%20");
    cache.fetch(&binary(url, &program), &nobody(), "").await.unwrap();

    let blob = content(40_000);
    let api: Arc<dyn WorkerApi> = Arc::new(Blobs(Bytes::from(blob.clone())));
    let url = format!("blob:{}", executr_spec::Digest::of(&blob));
    let cached = cache.fetch(&binary(&url, &blob), &api, "token").await.unwrap();
    assert_eq!(std::fs::read(cached.path()).unwrap(), blob);

    let absent = cache.fetch(&binary("file:///no/such/file", b"x"), &api, "").await.unwrap_err();
    assert!(absent.to_string().contains("machine of the worker"), "{absent}");
    let fifo = temp.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let nobody_writes = cache.fetch(&binary(format!("file://{}", fifo.display()), b"x"), &api, "").await.unwrap_err();
    assert!(nobody_writes.to_string().contains("not a file"), "{nobody_writes}");
    let missing = format!("blob:{}", executr_spec::Digest::of(b"y"));
    let missing = cache.fetch(&binary(missing, b"y"), &api, "token").await.unwrap_err();
    assert!(matches!(&missing, CacheError::Shared(_)) && missing.to_string().contains("no such blob"), "{missing}");
}
