//! What changed, and what changes while it is looked at.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use executr_tree::{Changes, Existing, SMALL, SnapshotError, SnapshotOptions, changes, diff, materialise, snapshot};

use crate::directories::Scene;

fn names(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

#[test]
fn what_a_job_did_to_its_directory_is_found() {
    let scene = Scene::new();
    for path in ["same", "edited", "mode", "gone", "dir/gone", "dir2/stays", "becomes-link", "rewritten"] {
        scene.write(path, path.as_bytes());
    }
    let tree = scene.snapshot();
    scene.keep(&tree);
    let placed = scene.place(tree.manifest(), "job");
    let job = scene.at("job");
    assert!(changes(tree.manifest(), &placed, &job).unwrap().is_empty());
    // Same length: only its times tell.
    fs::write(job.join("edited"), "EDITED").unwrap();
    fs::write(job.join("rewritten"), "rewritten").unwrap();
    fs::set_permissions(job.join("mode"), Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(job.join("gone")).unwrap();
    fs::remove_dir_all(job.join("dir")).unwrap();
    fs::remove_file(job.join("becomes-link")).unwrap();
    symlink("same", job.join("becomes-link")).unwrap();
    fs::create_dir_all(job.join("new/deep")).unwrap();
    fs::write(job.join("new/deep/file"), "x").unwrap();
    fs::create_dir(job.join("new/empty")).unwrap();
    let expected = Changes {
        added: names(&["new/deep/file", "new/empty"]),
        modified: names(&["becomes-link", "edited", "mode"]),
        deleted: names(&["dir/gone", "gone"]),
    };
    assert_eq!(changes(tree.manifest(), &placed, &job).unwrap(), expected);
    let now = snapshot(&job, &SnapshotOptions::everything()).unwrap();
    assert_eq!(diff(tree.manifest(), now.manifest()), expected, "near or far it is the same");
    let back = diff(now.manifest(), tree.manifest());
    assert_eq!((back.added, back.deleted), (expected.deleted, expected.added));
}

#[test]
fn what_was_placed_over_something_is_compared_with_what_was_placed() {
    let scene = Scene::new();
    scene.write("a", b"a");
    let tree = scene.snapshot();
    scene.keep(&tree);
    fs::create_dir(scene.at("job")).unwrap();
    fs::write(scene.at("job").join("other"), "x").unwrap();
    let placed = materialise(tree.manifest(), &scene.blobs, &scene.at("job"), Existing::Refuse).unwrap();
    let found = changes(tree.manifest(), &placed, &scene.at("job")).unwrap();
    assert_eq!(found, Changes { added: names(&["other"]), ..Changes::default() });
}

#[test]
fn a_second_snapshot_is_the_same_with_and_without_what_is_remembered() {
    let scene = Scene::new();
    for n in 0..200 {
        scene.write(format!("d{}/f{n}", n % 9), &vec![n as u8; 3_000 + n]);
    }
    scene.write("large", &vec![1; SMALL as usize * 3]);
    let options = SnapshotOptions { stat_cache: Some(scene.at("cache")), ..SnapshotOptions::everything() };
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    let first = snapshot(&scene.source(), &options).unwrap();
    assert_eq!(snapshot(&scene.source(), &options).unwrap().digest(), first.digest());
    // Written again within the same tick or not, with the same length, and made to look old: it is seen.
    for round in 0..20_u8 {
        let path = scene.source().join("d0/f0");
        fs::write(&path, vec![100 + round; 3_000]).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let warm = snapshot(&scene.source(), &options).unwrap();
        assert_eq!(warm.digest(), scene.snapshot().digest(), "round {round}");
    }
    fs::write(scene.at("cache"), "not a cache").unwrap();
    assert_eq!(snapshot(&scene.source(), &options).unwrap().digest(), scene.snapshot().digest());
}

#[test]
fn a_file_that_never_rests_is_named() {
    let scene = Scene::new();
    scene.write("busy", &vec![0; 8 << 20]);
    let path = scene.source().join("busy");
    let (stop, begun) = (AtomicBool::new(false), AtomicBool::new(false));
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(&path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::os::unix::fs::FileExt::write_at(&file, b"x", 0).unwrap();
                begun.store(true, Ordering::Relaxed);
            }
        });
        while !begun.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        // On a busy machine the writer may rest for as long as a snapshot takes: then it is one.
        let error = loop {
            if let Err(error) = snapshot(&scene.source(), &SnapshotOptions::everything()) {
                break error;
            }
        };
        stop.store(true, Ordering::Relaxed);
        error
    });
    assert!(matches!(&error, SnapshotError::Changing { path } if path.ends_with("busy")), "{error}");
}

#[test]
fn directories_that_come_and_go_are_no_error() {
    let scene = Scene::new();
    scene.write("stays", b"x");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let path = scene.source().join("comes/and");
            while !stop.load(Ordering::Relaxed) {
                fs::create_dir_all(&path).unwrap();
                let _ = fs::remove_dir_all(scene.source().join("comes"));
            }
        });
        for _ in 0..200 {
            let tree = snapshot(&scene.source(), &SnapshotOptions::everything()).unwrap();
            assert_eq!(tree.manifest().files().count(), 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
}
