//! What a watcher tells while files change.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use executr_tree::{Told, Watcher};

use crate::directories::Scene;

/// All that is told until these are among it.
fn until(watcher: &mut Watcher, wanted: &[&str]) -> BTreeSet<PathBuf> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut seen = BTreeSet::new();
    while !wanted.iter().all(|path| seen.contains(Path::new(path))) {
        assert!(Instant::now() < deadline, "of {wanted:?} only {seen:?}");
        match watcher.next(Duration::from_secs(1)).unwrap() {
            Some(Told::Touched(paths)) => seen.extend(paths),
            Some(Told::Rescan) => panic!("nothing was missed"),
            None => {}
        }
    }
    seen
}

#[test]
fn what_is_touched_is_told_wherever_it_is() {
    let scene = Scene::new();
    for path in ["a/b/file", "gone", "moved", "quiet"] {
        scene.write(path, b"x");
    }
    fs::create_dir(scene.at("outside")).unwrap();
    symlink(scene.at("outside"), scene.source().join("way")).unwrap();
    let mut watcher = Watcher::new(&scene.source()).unwrap();
    assert!(!watcher.is_partial());
    assert_eq!(watcher.next(Duration::ZERO).unwrap(), None);
    scene.write("a/b/file", b"y");
    scene.write("new/deep/er/file", b"x");
    fs::remove_file(scene.source().join("gone")).unwrap();
    fs::rename(scene.source().join("moved"), scene.source().join("a/there")).unwrap();
    fs::write(scene.at("outside").join("secret"), "x").unwrap();
    let seen = until(&mut watcher, &["a/b/file", "new/deep/er/file", "gone", "moved", "a/there"]);
    assert!(!seen.contains(Path::new("quiet")) && !seen.iter().any(|path| path.starts_with("way")));
    scene.write("new/deep/er/file", b"again");
    until(&mut watcher, &["new/deep/er/file"]);
}

#[test]
fn a_queue_that_runs_over_asks_for_a_rescan_and_goes_on() {
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let scene = Scene::new();
    scene.write("dir/file", b"x");
    let mut watcher = Watcher::new(&scene.source()).unwrap();
    // Alternating: the kernel puts equal ones next to each other together.
    for n in 0..most / 2 + 100 {
        for name in ["one", "other"] {
            fs::write(scene.source().join("dir").join(name), n.to_string()).unwrap();
        }
    }
    fs::create_dir(scene.source().join("missed")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while watcher.next(Duration::from_millis(10)).unwrap() != Some(Told::Rescan) {
        assert!(Instant::now() < deadline);
    }
    while watcher.next(Duration::ZERO).unwrap().is_some() {}
    scene.write("missed/file", b"x");
    until(&mut watcher, &["missed/file"]);
}
