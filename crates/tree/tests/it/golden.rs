//! A tree kept ready: brought up to date by little, copied, and never believed when somebody wrote in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use executr_tree::golden::{Golden, GoldenError, apply_delta, delta};
use executr_tree::stream::{StreamError, send_contents};
use executr_tree::{Baseline, Existing, PlaceAt, SMALL, Snapshot, SnapshotOptions, snapshot};

use crate::directories::Scene;

static GO_ON: AtomicBool = AtomicBool::new(false);

/// Brings it up to date, as both sides do it; how many bytes of manifest and files went over.
fn bring(golden: Golden, tree: &Snapshot) -> (Golden, usize, usize) {
    let mut sent = Vec::new();
    delta(golden.manifest(), tree.manifest(), &mut sent).unwrap();
    let manifest = apply_delta(golden.manifest(), &mut &sent[..]).unwrap();
    assert_eq!(manifest.outline_digest(), tree.manifest().outline_digest());
    let wanted = golden.wanted(&manifest).unwrap();
    let mut contents = Vec::new();
    send_contents(tree.manifest(), &wanted, tree, &mut contents).unwrap();
    let golden = golden.update(&GO_ON, manifest, &wanted, &mut &contents[..]).unwrap();
    assert_eq!(golden.digest(), tree.manifest().outline_digest());
    (golden, sent.len(), contents.len())
}

fn to(target: &Path) -> PlaceAt<'_> {
    PlaceAt { target, below: Path::new(""), existing: Existing::Refuse, owner: None }
}

fn same(path: &Path, tree: &Snapshot) {
    assert_eq!(snapshot(path, &SnapshotOptions::everything()).unwrap().digest(), tree.digest());
}

fn fill(scene: &Scene) {
    for n in 0..400_usize {
        scene.write(format!("d{}/f{n}", n % 9), &vec![n as u8; n * 20]);
    }
    scene.write("large", &vec![1; 3 * SMALL as usize]);
    scene.write("becomes-directory", b"x");
    scene.write("becomes-file/inner/x", b"x");
    scene.write("becomes-link", b"x");
    symlink("large", scene.source().join("link")).unwrap();
}

#[test]
fn it_is_brought_up_to_date_by_what_differs_and_copied() {
    let scene = Scene::new();
    fill(&scene);
    let first = scene.snapshot();
    let (golden, _, bytes) = bring(Golden::open(&scene.at("golden")).unwrap(), &first);
    assert_eq!(bytes as u64, first.manifest().size());
    let placed = golden.copy(&GO_ON, to(&scene.at("job"))).unwrap();
    same(&scene.at("job"), &first);
    assert!(Baseline::of_placed(first.manifest(), &placed).compare(&scene.at("job")).unwrap().is_empty());
    drop(golden);
    scene.write("d1/f1", b"changed");
    scene.write("new/deep/file", b"new");
    scene.write("new/empty", b"");
    fs::remove_file(scene.source().join("d2/f2")).unwrap();
    fs::remove_dir_all(scene.source().join("d3")).unwrap();
    fs::remove_file(scene.source().join("becomes-directory")).unwrap();
    scene.write("becomes-directory/in", b"y");
    fs::remove_dir_all(scene.source().join("becomes-file")).unwrap();
    scene.write("becomes-file", b"z");
    fs::remove_file(scene.source().join("becomes-link")).unwrap();
    symlink("d1", scene.source().join("becomes-link")).unwrap();
    fs::remove_file(scene.source().join("link")).unwrap();
    symlink("d1", scene.source().join("link")).unwrap();
    fs::set_permissions(scene.source().join("large"), Permissions::from_mode(0o700)).unwrap();
    let second = scene.snapshot();
    let golden = Golden::open(&scene.at("golden")).unwrap();
    assert_eq!(golden.digest(), first.manifest().outline_digest(), "it is still known after a restart");
    let (golden, manifest, bytes) = bring(golden, &second);
    assert!(manifest < 3_000, "{manifest} bytes of manifest");
    assert_eq!(bytes, "changed".len() + "new".len() + "y".len() + "z".len());
    golden.copy(&GO_ON, to(&scene.at("job2"))).unwrap();
    same(&scene.at("job2"), &second);
}

#[test]
fn what_somebody_wrote_in_it_is_not_copied_and_comes_again() {
    let scene = Scene::new();
    fill(&scene);
    let tree = scene.snapshot();
    let (golden, ..) = bring(Golden::open(&scene.at("golden")).unwrap(), &tree);
    fs::write(scene.at("golden/tree/d1/f1"), "evil").unwrap();
    let refused = golden.copy(&GO_ON, to(&scene.at("job"))).unwrap_err();
    assert!(matches!(&refused, GoldenError::Touched { path } if path.ends_with("d1/f1")), "{refused}");
    let (golden, _, bytes) = bring(golden, &tree);
    assert_eq!(bytes, 20, "only that file");
    golden.copy(&GO_ON, to(&scene.at("job2"))).unwrap();
    same(&scene.at("job2"), &tree);
}

#[test]
fn an_update_that_breaks_off_leaves_nothing_that_counts() {
    let scene = Scene::new();
    fill(&scene);
    let tree = scene.snapshot();
    let (golden, ..) = bring(Golden::open(&scene.at("golden")).unwrap(), &tree);
    assert!(matches!(Golden::open(&scene.at("golden")), Err(GoldenError::Busy { .. })));
    scene.write("large", &vec![9; 3 * SMALL as usize]);
    let next = scene.snapshot();
    let wanted = golden.wanted(next.manifest()).unwrap();
    let cut = golden.update(&GO_ON, next.manifest().clone(), &wanted, &mut &[9_u8; 1_000][..]).unwrap_err();
    assert!(matches!(cut, GoldenError::Stream(StreamError::Cut(_))), "{cut}");
    let golden = Golden::open(&scene.at("golden")).unwrap();
    assert!(golden.manifest().entries().is_empty(), "it begins anew");
    let (golden, ..) = bring(golden, &next);
    golden.copy(&GO_ON, to(&scene.at("job"))).unwrap();
    same(&scene.at("job"), &next);
}

#[test]
fn what_is_no_delta_is_refused() {
    let scene = Scene::new();
    fill(&scene);
    let tree = scene.snapshot();
    let mut sent = Vec::new();
    delta(Golden::open(&scene.at("golden")).unwrap().manifest(), tree.manifest(), &mut sent).unwrap();
    for length in [0, 7, 20, sent.len() - 1] {
        assert!(apply_delta(tree.manifest(), &mut &sent[..length]).is_err(), "{length}");
    }
    let mut huge = sent[..sent.len() - 8].to_vec();
    huge.extend(u64::MAX.to_le_bytes());
    assert!(matches!(apply_delta(tree.manifest(), &mut &huge[..]), Err(StreamError::Manifest(_))));
    // What is in a directory stays when the directory goes: no tree has that.
    let mut orphan = Vec::new();
    executr_tree::stream::send_manifest(Golden::open(&scene.at("other")).unwrap().manifest(), &mut orphan).unwrap();
    orphan.extend(3_u64.to_le_bytes());
    orphan.extend(b"d1\0");
    assert!(matches!(apply_delta(tree.manifest(), &mut &orphan[..]), Err(StreamError::Manifest(_))));
}
