//! Nothing is written, or read, outside of where it should be.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use executr_tree::{Existing, Kind, SMALL, SnapshotError, SnapshotOptions, materialise, snapshot};

use crate::directories::Scene;

#[test]
fn links_in_the_source_lead_nowhere() {
    let scene = Scene::new();
    let outside = scene.at("outside");
    fs::create_dir_all(outside.join("ssh")).unwrap();
    fs::write(outside.join("ssh/key"), "secret").unwrap();
    scene.write("dir/file", b"own");
    symlink(&outside, scene.source().join("way")).unwrap();
    for named in [false, true] {
        let options = SnapshotOptions { within: Some(scene.source()), named, ..SnapshotOptions::everything() };
        for path in ["way/ssh", "way/ssh/key", "dir/../way/ssh", "../outside/ssh"] {
            let refused = snapshot(&scene.source().join(path), &options).unwrap_err();
            assert!(matches!(refused, SnapshotError::Link { .. }), "{path}: {refused}");
        }
        for path in ["dir", "dir/file", "way"] {
            let path = scene.source().join(path);
            let free = SnapshotOptions { within: None, ..options.clone() };
            assert_eq!(snapshot(&path, &options).unwrap().digest(), snapshot(&path, &free).unwrap().digest());
        }
    }
}

#[test]
fn what_takes_a_directorys_place_later_is_not_read() {
    let scene = Scene::new();
    scene.write("dir/file", &vec![1; SMALL as usize + 1]);
    let options = SnapshotOptions { within: Some(scene.source()), ..SnapshotOptions::everything() };
    let tree = snapshot(&scene.source().join("dir"), &options).unwrap();
    let blob = tree.manifest().blobs()[0];
    fs::rename(scene.source().join("dir"), scene.at("moved")).unwrap();
    let outside = scene.at("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), vec![2; SMALL as usize + 1]).unwrap();
    symlink(&outside, scene.source().join("dir")).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut tree.blob(blob).unwrap().open(), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 1));
}

#[test]
fn links_in_the_target_lead_nowhere() {
    let scene = Scene::new();
    scene.write("dir/file", b"new");
    scene.write("top", b"new");
    let tree = scene.snapshot();
    scene.keep(&tree);
    let outside = scene.at("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("top"), "old").unwrap();
    for existing in [Existing::Refuse, Existing::Replace] {
        let target = scene.at("target");
        fs::create_dir(&target).unwrap();
        symlink(&outside, target.join("dir")).unwrap();
        symlink(outside.join("top"), target.join("top")).unwrap();
        let refused = materialise(tree.manifest(), &scene.blobs, &target, existing);
        assert!(refused.is_err(), "a link stands in a directory's place");
        assert!(!outside.join("file").exists());
        fs::remove_file(target.join("dir")).unwrap();
        let put = materialise(tree.manifest(), &scene.blobs, &target, existing);
        assert_eq!(put.is_ok(), existing == Existing::Replace);
        assert_eq!(fs::read(outside.join("top")).unwrap(), b"old", "never through the link");
        if put.is_ok() {
            assert!(fs::symlink_metadata(target.join("top")).unwrap().is_file());
        }
        fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn a_link_put_there_meanwhile_leads_nowhere() {
    let scene = Scene::new();
    for n in 0..50 {
        scene.write(format!("dir/sub/f{n}"), b"x");
    }
    let tree = scene.snapshot();
    scene.keep(&tree);
    let outside = scene.at("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (place, aside) = (scene.at("target/dir"), scene.at("aside"));
            while !stop.load(Ordering::Relaxed) {
                if fs::rename(&place, &aside).is_ok() {
                    let _ = symlink(&outside, &place);
                    let _ = fs::remove_file(&place);
                    let _ = fs::rename(&aside, &place);
                }
                let _ = fs::remove_dir_all(&aside);
            }
        });
        for _ in 0..100 {
            // Whether it succeeds depends on who comes first.
            let _ = materialise(tree.manifest(), &scene.blobs, &scene.at("target"), Existing::Replace);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(outside.join("sub")).unwrap().count(), 0);
}

#[test]
fn what_a_link_leads_to_is_not_taken() {
    let scene = Scene::new();
    scene.write("a", b"x");
    fs::create_dir(scene.at("outside")).unwrap();
    fs::write(scene.at("outside").join("secret"), "s").unwrap();
    symlink(scene.at("outside"), scene.source().join("link")).unwrap();
    let status = std::process::Command::new("mkfifo").arg(scene.source().join("pipe")).status().unwrap();
    assert!(status.success());
    let tree = snapshot(&scene.source(), &SnapshotOptions::everything()).unwrap();
    assert!(matches!(tree.manifest().get(Path::new("link")).unwrap().kind, Kind::Symlink { .. }));
    assert_eq!(tree.manifest().entries().len(), 2, "pipes are left out");
}
