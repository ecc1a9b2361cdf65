//! A directory, made a tree and put elsewhere, is the same directory.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use executr_tree::{
    Existing, Kind, Manifest, MaterialiseError, SMALL, SnapshotError, SnapshotOptions, materialise, materialise_unless,
    snapshot, snapshot_telling,
};
use proptest::prelude::*;

use crate::directories::{Scene, paths};

#[test]
fn modes_links_and_empty_directories_come_back() {
    let scene = Scene::new();
    scene.write("bin/tool", b"#!/bin/sh\n");
    scene.write("large", &vec![3; SMALL as usize + 17]);
    scene.write("empty", b"");
    scene.write("secret", b"s");
    let source = scene.source();
    fs::create_dir_all(source.join("no/thing/here")).unwrap();
    symlink("../outside", source.join("bin/link")).unwrap();
    for (path, mode) in [("bin/tool", 0o4755), ("secret", 0o600), ("empty", 0o444), ("no/thing", 0o500), ("bin", 0o777)]
    {
        fs::set_permissions(source.join(path), Permissions::from_mode(mode)).unwrap();
    }
    let tree = scene.snapshot();
    assert_eq!(
        paths(tree.manifest()),
        ["bin", "bin/link", "bin/tool", "empty", "large", "no", "no/thing", "no/thing/here", "secret"]
    );
    scene.keep(&tree);
    scene.place(tree.manifest(), "copy");
    let copy = scene.at("copy");
    let mode = |path| fs::symlink_metadata(copy.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        [mode("bin/tool"), mode("secret"), mode("empty"), mode("no/thing"), mode("bin")],
        [0o755, 0o600, 0o444, 0o500, 0o777],
        "set-user-id is dropped, all else is as it was"
    );
    assert_eq!(fs::read_link(copy.join("bin/link")).unwrap(), Path::new("../outside"));
    assert_eq!(fs::read(copy.join("large")).unwrap(), vec![3; SMALL as usize + 17]);
    let again = snapshot(&copy, &SnapshotOptions::everything()).unwrap();
    assert_eq!(again.digest(), tree.digest());
}

#[test]
fn one_file_is_a_tree_and_one_link() {
    let scene = Scene::new();
    scene.write("app", b"program");
    symlink("app", scene.source().join("link")).unwrap();
    scene.write("large", &vec![1; SMALL as usize]);
    for name in ["app", "link", "large"] {
        let tree = snapshot(&scene.source().join(name), &SnapshotOptions::everything()).unwrap();
        assert!(tree.manifest().is_single());
        assert_eq!(Manifest::parse(tree.encoded()).unwrap(), *tree.manifest());
        scene.keep(&tree);
        let place = format!("restored-{name}");
        scene.place(tree.manifest(), &place);
        let again = snapshot(&scene.at(&place), &SnapshotOptions::everything()).unwrap();
        assert_eq!(again.digest(), tree.digest(), "its own name is no part of it");
    }
    let missing = snapshot(&scene.at("none"), &SnapshotOptions::everything()).unwrap_err();
    assert!(missing.to_string().contains("none"), "{missing}");
    assert!(matches!(
        snapshot(Path::new("/dev/null"), &SnapshotOptions::everything()),
        Err(SnapshotError::Special { .. })
    ));
}

#[test]
fn every_blob_is_told_of_while_the_tree_is_made() {
    let scene = Scene::new();
    for n in 0..300 {
        scene.write(format!("d{}/f{n}", n % 7), &vec![n as u8; 4_000]);
    }
    scene.write("large", &vec![9; 300_000]);
    let told = std::sync::Mutex::new(Vec::new());
    let tree = snapshot_telling(&scene.source(), &SnapshotOptions::everything(), &|blob| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut blob.open(), &mut bytes).unwrap();
        assert_eq!((executr_spec::Digest::of(&bytes), bytes.len() as u64), (blob.digest(), blob.size()));
        told.lock().unwrap().push(blob.digest());
    })
    .unwrap();
    let mut told = told.into_inner().unwrap();
    told.sort();
    told.dedup();
    assert_eq!(told, tree.manifest().blobs());
}

#[test]
fn what_stands_there_is_kept_or_replaced_as_asked() {
    let scene = Scene::new();
    scene.write("a/one", b"new");
    let tree = scene.snapshot();
    scene.keep(&tree);
    let target = scene.at("target");
    fs::create_dir_all(target.join("a")).unwrap();
    fs::write(target.join("a/one"), "old").unwrap();
    fs::write(target.join("a/two"), "mine").unwrap();
    let refused = materialise(tree.manifest(), &scene.blobs, &target, Existing::Refuse).unwrap_err();
    assert!(matches!(&refused, MaterialiseError::Exists { path } if path.ends_with("a/one")), "{refused}");
    assert_eq!(fs::read(target.join("a/one")).unwrap(), b"old");
    materialise(tree.manifest(), &scene.blobs, &target, Existing::Replace).unwrap();
    assert_eq!(fs::read(target.join("a/one")).unwrap(), b"new");
    assert_eq!(fs::read(target.join("a/two")).unwrap(), b"mine");
}

#[test]
fn directories_that_stand_there_keep_their_modes_unless_all_is_replaced() {
    let scene = Scene::new();
    scene.write("mine/deep/one", b"1");
    scene.write("new/two", b"2");
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for made in ["mine", "mine/deep", "new"] {
        set(&scene.source().join(made), 0o755);
    }
    let tree = scene.snapshot();
    scene.keep(&tree);
    let target = scene.at("target");
    fs::create_dir_all(target.join("mine")).unwrap();
    set(&target.join("mine"), 0o700);
    let mode = |path: &str| fs::metadata(target.join(path)).unwrap().permissions().mode() & 0o7777;
    materialise(tree.manifest(), &scene.blobs, &target, Existing::Refuse).unwrap();
    assert_eq!(["mine", "mine/deep", "new"].map(mode), [0o700, 0o755, 0o755]);
    materialise(tree.manifest(), &scene.blobs, &target, Existing::Replace).unwrap();
    assert_eq!(mode("mine"), 0o755);
}

#[test]
fn a_tree_that_is_told_to_stop_is_not_put_anywhere() {
    let scene = Scene::new();
    scene.write("dir/file", b"x");
    let tree = scene.snapshot();
    scene.keep(&tree);
    let (stopped, target) = (AtomicBool::new(true), scene.at("target"));
    let ended = materialise_unless(&stopped, tree.manifest(), &scene.blobs, &target, Existing::Replace).unwrap_err();
    assert!(matches!(ended, MaterialiseError::Stopped), "{ended}");
    assert!(!target.join("dir").exists());
    stopped.store(false, Ordering::Relaxed);
    materialise_unless(&stopped, tree.manifest(), &scene.blobs, &target, Existing::Replace).unwrap();
    assert!(target.join("dir/file").exists());
}

#[test]
fn a_tree_without_its_blobs_is_not_put_anywhere() {
    let scene = Scene::new();
    scene.write("a", b"x");
    let tree = scene.snapshot();
    let missing = materialise(tree.manifest(), &scene.blobs, &scene.at("target"), Existing::Refuse).unwrap_err();
    assert!(matches!(missing, MaterialiseError::Missing(_)), "{missing}");
}

/// Names of any bytes that can be one.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'a'), Just(b'b'), Just(b'.'), Just(b' '), Just(b'\n'), 1..=255_u8];
    proptest::collection::vec(byte, 1..6)
        .prop_filter("no name", |name| !name.contains(&b'/') && !matches!(name.as_slice(), b"." | b".."))
}

#[derive(Clone, Debug)]
enum Thing {
    File(u32, Vec<u8>),
    Large(u8),
    Link(Vec<u8>),
    Directory,
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        4 => (0..0o1000_u32, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(mode, bytes)| Thing::File(mode | 0o400, bytes)),
        1 => any::<u8>().prop_map(Thing::Large),
        1 => name().prop_map(Thing::Link),
        1 => Just(Thing::Directory),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_directory_comes_back(things in proptest::collection::vec((proptest::collection::vec(name(), 1..4), thing()), 0..25)) {
        let scene = Scene::new();
        for (names, thing) in things {
            let path: PathBuf = names.iter().map(|name| OsStr::from_bytes(name)).collect();
            let path = scene.source().join(path);
            // What can't be made, since a file is in the way, is left out.
            if fs::create_dir_all(path.parent().unwrap()).is_err() || fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            match thing {
                Thing::File(mode, bytes) => {
                    fs::write(&path, bytes).unwrap();
                    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                }
                Thing::Large(byte) => fs::write(&path, vec![byte; SMALL as usize + usize::from(byte)]).unwrap(),
                Thing::Link(target) => symlink(OsStr::from_bytes(&target), &path).unwrap(),
                Thing::Directory => fs::create_dir(&path).unwrap(),
            }
        }
        let tree = scene.snapshot();
        prop_assert_eq!(&Manifest::parse(tree.encoded()).unwrap(), tree.manifest());
        scene.keep(&tree);
        scene.place(tree.manifest(), "copy");
        let again = snapshot(&scene.at("copy"), &SnapshotOptions::everything()).unwrap();
        prop_assert_eq!(again.manifest(), tree.manifest());
        prop_assert_eq!(again.digest(), tree.digest());
        let files = tree.manifest().entries().iter().filter(|entry| matches!(entry.kind, Kind::File(_))).count();
        prop_assert_eq!(tree.manifest().files().count(), files);
    }
}

#[test]
fn what_keeps_its_name_is_as_if_it_had_been_copied_into_a_directory() {
    let scene = Scene::new();
    scene.write("dist/bin/app", b"program");
    scene.write("dist/large", &vec![1; SMALL as usize + 1]);
    fs::create_dir_all(scene.at("copied/one")).unwrap();
    fs::create_dir_all(scene.at("copied/all")).unwrap();
    let copy = |from: &str, to: &str| {
        let status =
            std::process::Command::new("cp").arg("-r").arg(scene.source().join(from)).arg(scene.at(to)).status();
        assert!(status.unwrap().success());
    };
    copy("dist/bin/app", "copied/one/");
    copy("dist", "copied/all/");
    let named = SnapshotOptions { named: true, ..SnapshotOptions::everything() };
    for (path, copied, found) in [
        ("dist/bin/app", "copied/one", &["app"][..]),
        ("dist", "copied/all", &["dist", "dist/bin", "dist/bin/app", "dist/large"]),
    ] {
        let tree = snapshot(&scene.source().join(path), &named).unwrap();
        assert_eq!(paths(tree.manifest()), found);
        let whole = snapshot(&scene.at(copied), &SnapshotOptions::everything()).unwrap();
        assert_eq!(tree.digest(), whole.digest(), "{path}");
        scene.keep(&tree);
        scene.place(tree.manifest(), &format!("placed/{}", found.len()).replace('/', "-"));
    }
    assert_eq!(fs::read(scene.at("placed-1/app")).unwrap(), b"program");
    assert_eq!(fs::read(scene.at("placed-4/dist/bin/app")).unwrap(), b"program");
}
