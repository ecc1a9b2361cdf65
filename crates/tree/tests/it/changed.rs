//! What changed, and what changes while it is looked at.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use executr_tree::{
    Baseline, Changes, Existing, News, SMALL, SnapshotError, SnapshotOptions, diff, materialise, snapshot,
};

use crate::directories::Scene;

/// What is told, with a letter for the news as `git status` has it.
fn told(changes: &Changes) -> Vec<String> {
    let letter = |news| match news {
        News::Added => 'A',
        News::Modified => 'M',
        News::Mode => 'X',
        News::Deleted => 'D',
    };
    changes.told().map(|change| format!("{} {}", letter(change.news), change.path.display())).collect()
}

#[test]
fn what_a_job_did_to_its_directory_is_found() {
    let scene = Scene::new();
    for path in ["same", "edited", "mode", "gone", "dir/gone", "dir2/stays", "becomes-link", "rewritten", "grown"] {
        scene.write(path, path.as_bytes());
    }
    scene.write("becomes-file/inner/x", b"x");
    scene.write("becomes-directory", b"x");
    symlink("same", scene.source().join("link")).unwrap();
    symlink("same", scene.source().join("link-again")).unwrap();
    let tree = scene.snapshot();
    scene.keep(&tree);
    let placed = scene.place(tree.manifest(), "job");
    let job = scene.at("job");
    let baseline = Baseline::of_placed(tree.manifest(), &placed);
    assert_eq!(baseline.len(), tree.manifest().entries().len());
    assert!(baseline.compare(&job).unwrap().is_empty());
    // Same length: only its times tell.
    fs::write(job.join("edited"), "EDITED").unwrap();
    fs::write(job.join("rewritten"), "rewritten").unwrap();
    fs::write(job.join("grown"), "more than grown").unwrap();
    fs::set_permissions(job.join("mode"), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(job.join("dir2"), Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(job.join("gone")).unwrap();
    fs::remove_dir_all(job.join("dir")).unwrap();
    for (path, target) in [("becomes-link", "same"), ("link", "edited"), ("link-again", "same")] {
        fs::remove_file(job.join(path)).unwrap();
        symlink(target, job.join(path)).unwrap();
    }
    fs::remove_dir_all(job.join("becomes-file")).unwrap();
    fs::write(job.join("becomes-file"), "x").unwrap();
    fs::remove_file(job.join("becomes-directory")).unwrap();
    fs::create_dir_all(job.join("becomes-directory/inner")).unwrap();
    fs::create_dir_all(job.join("new/deep")).unwrap();
    fs::write(job.join("new/deep/file"), "x").unwrap();
    fs::create_dir(job.join("new/empty")).unwrap();
    let expected = [
        "M becomes-directory",
        "A becomes-directory/inner",
        "M becomes-file",
        "D becomes-file/inner/x",
        "M becomes-link",
        "D dir/gone",
        "X dir2",
        "M edited",
        "D gone",
        "M grown",
        "M link",
        "X mode",
        "A new/deep/file",
        "A new/empty",
    ];
    let changes = baseline.compare(&job).unwrap();
    assert_eq!(told(&changes), expected);
    let now = snapshot(&job, &SnapshotOptions::everything()).unwrap();
    assert_eq!(diff(tree.manifest(), now.manifest()), changes, "near or far it is the same");
    let looked = baseline.advance(&job).unwrap();
    assert_eq!(looked.changes, changes);
    assert!(looked.baseline.compare(&job).unwrap().is_empty());
    // What came meanwhile is known as well as what was placed.
    fs::write(job.join("new/deep/file"), "x").unwrap();
    assert!(looked.baseline.compare(&job).unwrap().is_empty());
    fs::write(job.join("new/deep/file"), "y").unwrap();
    assert_eq!(told(&looked.baseline.compare(&job).unwrap()), ["M new/deep/file"]);
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
    let found = Baseline::of_placed(tree.manifest(), &placed).compare(&scene.at("job")).unwrap();
    assert_eq!(told(&found), ["A other"]);
}

#[test]
fn a_change_within_one_tick_of_the_clock_is_found() {
    let scene = Scene::new();
    for n in 0..20_u8 {
        scene.write(format!("f{n}"), &[n; 100]);
    }
    let baseline = Baseline::default().advance(&scene.source()).unwrap().baseline;
    for n in 0..20_u8 {
        // Right after it was looked at, in place and as long as it was.
        std::os::unix::fs::FileExt::write_at(
            &fs::File::options().write(true).open(scene.source().join(format!("f{n}"))).unwrap(),
            &[n + 1],
            50,
        )
        .unwrap();
    }
    assert_eq!(baseline.compare(&scene.source()).unwrap().all().len(), 20);
}

#[test]
fn odd_names_holes_and_attributes_are_seen() {
    let scene = Scene::new();
    let odd = std::ffi::OsStr::from_bytes(b"\xff\n\x01 -rf *");
    scene.write(odd, b"x");
    scene.write("plain", b"x");
    scene.write("dir/in", b"x");
    let holes = fs::File::create(scene.source().join("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    let before = Baseline::default().advance(&scene.source()).unwrap().baseline;
    std::os::unix::fs::FileExt::write_at(&holes, b"x", 32 << 20).unwrap();
    fs::write(scene.source().join(odd), "y").unwrap();
    for path in ["plain", "dir"] {
        let file = fs::File::open(scene.source().join(path)).unwrap();
        let set = rustix::fs::fsetxattr(&file, "user.note", b"1", rustix::fs::XattrFlags::empty());
        if set == Err(rustix::io::Errno::NOTSUP) {
            return;
        }
        set.unwrap();
    }
    let looked = before.advance(&scene.source()).unwrap();
    let paths = |news| looked.changes.paths(news);
    assert_eq!(paths(News::Mode), [Path::new("dir"), Path::new("plain")]);
    assert_eq!(paths(News::Modified), [Path::new("holes"), Path::new(odd)]);
    assert!(looked.baseline.compare(&scene.source()).unwrap().is_empty());
}

#[test]
fn a_look_that_read_nothing_takes_what_was_written_for_changed() {
    let scene = Scene::new();
    scene.write("a/file", b"x");
    scene.write("b", b"x");
    let before = Baseline::record(&scene.source()).unwrap();
    assert!(before.compare(&scene.source()).unwrap().is_empty());
    scene.write("a/file", b"yy");
    fs::remove_file(scene.source().join("b")).unwrap();
    assert_eq!(told(&before.compare(&scene.source()).unwrap()), ["M a/file", "D b"]);
    assert!(Baseline::record(&scene.at("nowhere")).is_err());
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
