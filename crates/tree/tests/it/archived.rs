//! Trees as archives that other programs read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use executr_tree::{SMALL, Snapshot, SnapshotOptions, export, snapshot};

use crate::directories::Scene;

fn packed(tree: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(tree.manifest(), tree, Path::new("name"), &mut bytes).unwrap();
    bytes
}

/// Unpacks an archive into `out`, by other programs.
fn unpack(scene: &Scene, bytes: &[u8]) {
    fs::write(scene.at("archive.tar.zst"), bytes).unwrap();
    fs::create_dir(scene.at("out")).unwrap();
    let script = "zstd -q -dc archive.tar.zst | tar -xpf - -C out";
    let status = Command::new("sh").args(["-c", script]).current_dir(scene.at("")).status().unwrap();
    assert!(status.success());
}

#[test]
fn an_archive_is_the_tree_for_tar() {
    let scene = Scene::new();
    scene.write("bin/tool", b"#!/bin/sh\n");
    scene.write("large", &vec![5; SMALL as usize * 2]);
    scene.write("empty", b"");
    scene.write(format!("long/{}/{}", "d".repeat(120), "f".repeat(120)), b"deep");
    let source = scene.source();
    fs::set_permissions(source.join("bin/tool"), Permissions::from_mode(0o755)).unwrap();
    symlink("x".repeat(150), source.join("link")).unwrap();
    fs::create_dir(source.join("closed")).unwrap();
    scene.write("closed/in", b"x");
    fs::set_permissions(source.join("closed"), Permissions::from_mode(0o500)).unwrap();
    let tree = scene.snapshot();
    let bytes = packed(&tree);
    assert_eq!(bytes, packed(&tree), "equal trees make equal archives");
    unpack(&scene, &bytes);
    let again = snapshot(&scene.at("out"), &SnapshotOptions::everything()).unwrap();
    assert_eq!(again.manifest(), tree.manifest());
}

#[test]
fn one_file_has_the_name_it_is_given() {
    let scene = Scene::new();
    scene.write("app", b"program");
    let tree = snapshot(&scene.source().join("app"), &SnapshotOptions::everything()).unwrap();
    unpack(&scene, &packed(&tree));
    assert_eq!(fs::read(scene.at("out").join("name")).unwrap(), b"program");
}
