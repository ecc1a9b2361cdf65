//! A directory of blobs that is bounded, and what it may not lose.

use std::time::{Duration, SystemTime};

use executr_spec::Digest;
use executr_tree::{BlobDir, BlobDirError};

fn put(blobs: &BlobDir, names: &[&str]) -> Vec<Digest> {
    let bring = |name: &&str| {
        let mut partial = blobs.bring(Digest::of(name.as_bytes())).unwrap().unwrap();
        partial.append(name.as_bytes()).unwrap();
        partial
    };
    blobs.commit_all(names.iter().map(bring).collect()).unwrap();
    names.iter().map(|name| Digest::of(name.as_bytes())).collect()
}

fn used(blobs: &BlobDir, digests: &[Digest]) {
    for (seconds, digest) in (1_000..).zip(digests) {
        blobs.touch(*digest, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }
}

#[test]
fn the_least_recently_used_go_first_but_none_that_is_held_or_leased() {
    let temp = tempfile::tempdir().unwrap();
    let (blobs, others) = (BlobDir::open(temp.path()).unwrap(), BlobDir::open(temp.path()).unwrap());
    let digests = put(&blobs, &["1111", "2222", "3333", "4444", "5555", "6666"]);
    used(&blobs, &digests);
    let there = || digests.iter().map(|digest| u8::from(blobs.has(*digest))).collect::<Vec<_>>();
    let _held = others.hold(digests[0]).unwrap().unwrap();
    let lease = others.lease(&[digests[1], Digest::of(b"not there yet")]).unwrap();
    assert_eq!(blobs.trim(24).unwrap(), 24);
    assert_eq!(blobs.trim(13).unwrap(), 12);
    assert_eq!(there(), [1, 1, 0, 0, 0, 1]);
    drop(lease);
    assert_eq!(blobs.trim(8).unwrap(), 8);
    assert_eq!(there(), [1, 0, 0, 0, 0, 1]);
    assert_eq!(blobs.trim(0).unwrap(), 4, "what is held can't go");
}

#[test]
fn what_a_dead_process_leased_may_go() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = BlobDir::open(temp.path()).unwrap();
    let digest = put(&blobs, &["left"])[0];
    let left = temp.path().join(".leases/1-0");
    std::fs::write(&left, digest.0).unwrap();
    assert_eq!(blobs.trim(0).unwrap(), 0);
    assert!(!left.exists());
}

#[test]
fn of_many_blobs_the_good_ones_are_kept_and_a_bad_one_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = BlobDir::open(temp.path()).unwrap();
    let bring = |name: &[u8], content: &[u8]| {
        let mut partial = blobs.bring(Digest::of(name)).unwrap().unwrap();
        partial.append(content).unwrap();
        partial
    };
    let many = ["a", "b", "c", "d", "e"].map(|name| bring(name.as_bytes(), name.as_bytes()));
    let all = many.into_iter().chain([bring(b"f", b"other")]).collect();
    let error = blobs.commit_all(all).unwrap_err();
    assert!(matches!(error, BlobDirError::Mismatch { expected, .. } if expected == Digest::of(b"f")), "{error}");
    assert_eq!(blobs.entries().unwrap().len(), 5);
    assert_eq!(blobs.read(Digest::of(b"a")).unwrap().as_deref(), Some(&b"a"[..]));
}
