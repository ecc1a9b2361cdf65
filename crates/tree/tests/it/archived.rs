//! Trees as archives that other programs read, and archives that others made.

use std::fs::{self, Permissions};
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use executr_tree::{ArchiveError, SMALL, Snapshot, SnapshotOptions, export, import, snapshot};

use crate::directories::Scene;

fn packed(tree: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(tree.manifest(), tree, Path::new("name"), &mut bytes).unwrap();
    bytes
}

#[test]
fn an_archive_is_the_tree_for_us_and_for_tar() {
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
    import(Cursor::new(&bytes), &scene.at("ours")).unwrap();
    fs::write(scene.at("archive.tar.zst"), &bytes).unwrap();
    fs::create_dir(scene.at("theirs")).unwrap();
    let script = "zstd -q -dc archive.tar.zst | tar -xpf - -C theirs";
    let status = Command::new("sh").args(["-c", script]).current_dir(scene.at("")).status().unwrap();
    assert!(status.success());
    for place in ["ours", "theirs"] {
        let again = snapshot(&scene.at(place), &SnapshotOptions::everything()).unwrap();
        assert_eq!(again.manifest(), tree.manifest(), "{place}");
    }
}

#[test]
fn one_file_has_the_name_it_is_given() {
    let scene = Scene::new();
    scene.write("app", b"program");
    let tree = snapshot(&scene.source().join("app"), &SnapshotOptions::everything()).unwrap();
    import(Cursor::new(packed(&tree)), &scene.at("out")).unwrap();
    assert_eq!(fs::read(scene.at("out").join("name")).unwrap(), b"program");
}

/// An archive with the given entries, whose names no careful program would write.
fn hostile(entries: &[(&[u8], tar::EntryType, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, link) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(0);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        archive.append(&header, std::io::empty()).unwrap();
    }
    zstd::encode_all(Cursor::new(archive.into_inner().unwrap()), 1).unwrap()
}

#[test]
fn archives_write_nowhere_else() {
    use tar::EntryType::{Link, Regular, Symlink};
    let scene = Scene::new();
    let outside = scene.at("outside");
    fs::create_dir(&outside).unwrap();
    let outside_text = outside.to_str().unwrap();
    for (number, entries) in [
        vec![(&b"../outside/f"[..], Regular, "")],
        vec![(b"/tmp/executr-tree-outside", Regular, "")],
        vec![(b"l", Symlink, outside_text), (b"l/f", Regular, "")],
        vec![(b"l", Symlink, outside_text), (b"l", Regular, "")],
        vec![(b"l", Link, "/etc/passwd")],
    ]
    .into_iter()
    .enumerate()
    {
        let refused = import(Cursor::new(hostile(&entries)), &scene.at(&format!("target{number}")));
        assert!(refused.is_err(), "{entries:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{entries:?}");
    }
    assert!(!Path::new("/tmp/executr-tree-outside").exists());
    let no_archive = import(Cursor::new(b"not an archive"), &scene.at("none"));
    assert!(matches!(no_archive, Err(ArchiveError::Io(_))));
}
