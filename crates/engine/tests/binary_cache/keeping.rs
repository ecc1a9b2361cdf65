//! How programs are kept.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::web::{Web, binary, cache, content, counted, nobody};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_program_is_never_run() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(10_000);
    let web = Web::serve(&program).await;
    let cache = cache(temp.path(), |_| ());
    let step = binary(web.url("/p"), &program);
    let path = cache.fetch(&step, &nobody(), "").await.unwrap().path().to_owned();
    for round in 1..=3 {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut changed = program.clone();
        changed[5_000] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let cached = cache.fetch(&step, &nobody(), "").await.unwrap();
        assert_eq!(std::fs::read(cached.path()).unwrap(), program, "round {round}");
        assert_eq!(web.asked().len(), 1 + round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_changed_before_this_process_saw_it_is_never_run() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(10_000);
    let web = Web::serve(&program).await;
    let step = binary(web.url("/p"), &program);
    let path = cache(temp.path(), |_| ()).fetch(&step, &nobody(), "").await.unwrap().path().to_owned();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&path, b"something else").unwrap();
    let later = cache(temp.path(), |_| ());
    assert_eq!(std::fs::read(later.fetch(&step, &nobody(), "").await.unwrap().path()).unwrap(), program);
    assert_eq!((web.asked().len(), counted(&later).cache_misses), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_recently_used_go_and_none_that_is_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let cache = cache(temp.path(), |options| options.max_bytes = 25_000);
    let mut steps = Vec::new();
    for n in 0..4_u8 {
        let program: Vec<u8> = vec![n; 10_000];
        let path = temp.path().join(n.to_string());
        std::fs::write(&path, &program).unwrap();
        steps.push(binary(format!("file://{}", path.display()), &program));
    }
    let there = |n: usize| temp.path().join("cache").join(steps[n].sha256.to_string()).exists();
    let fetch = async |n: usize| {
        let step = &steps[n];
        cache.fetch(step, &nobody(), "").await.unwrap()
    };
    let in_use = fetch(0).await;
    drop(fetch(1).await);
    drop(fetch(2).await);
    assert!(there(0) && !there(1) && there(2), "the oldest is in use, the next oldest goes");
    drop(in_use);
    drop(fetch(0).await);
    drop(fetch(3).await);
    assert!(there(0) && !there(2) && there(3), "the one used last stays");
    assert_eq!(counted(&cache).cache_bytes, 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settled_program_is_not_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let program = content(1_000_000);
    let web = Web::serve(&program).await;
    let cache = cache(temp.path(), |_| ());
    let step = binary(web.url("/p"), &program);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let before = bytes_read();
        cache.fetch(&step, &nobody(), "").await.unwrap();
        if bytes_read() - before < program.len() as u64 {
            break;
        }
        assert!(Instant::now() < deadline, "it is read again and again");
        tokio::task::yield_now().await;
    }
}

/// Bytes this process has read so far: `rchar` of proc_pid_io(5).
fn bytes_read() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}
