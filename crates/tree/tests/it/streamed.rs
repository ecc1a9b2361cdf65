//! Trees over a stream: into a directory, and out of one into blobs.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use executr_tree::stream::{
    ChunkReader, ChunkWriter, StreamError, Taking, TakingError, Wanted, gather, place_stream, receive_manifest,
    send_contents, send_manifest,
};
use executr_tree::{Baseline, Existing, Manifest, PlaceAt, SMALL, SnapshotOptions, materialise, snapshot};

use crate::directories::Scene;

static GO_ON: AtomicBool = AtomicBool::new(false);
const MOST: u64 = 1 << 30;

/// What is written, as the pieces it goes over in.
fn pieces(write: impl FnOnce(&mut dyn Write) -> Result<(), StreamError>) -> Result<Vec<Vec<u8>>, StreamError> {
    let mut pieces = Vec::new();
    let mut writer = ChunkWriter::new(|piece| {
        pieces.push(piece);
        Ok(())
    });
    write(&mut writer)?;
    writer.finish().map_err(StreamError::Cut)?;
    Ok(pieces)
}

fn reader(pieces: Vec<Vec<u8>>) -> ChunkReader<impl FnMut() -> io::Result<Option<Vec<u8>>>, Vec<u8>> {
    let mut pieces = VecDeque::from(pieces);
    ChunkReader::new(move || Ok(pieces.pop_front()))
}

fn put_pieces(scene: &Scene) -> (Manifest, Vec<Vec<u8>>) {
    let tree = scene.snapshot();
    let sent = pieces(|mut to| {
        send_manifest(tree.manifest(), &mut to)?;
        send_contents(tree.manifest(), &Wanted::All, &tree, &mut to)
    });
    (tree.manifest().clone(), sent.unwrap())
}

fn put(pieces: Vec<Vec<u8>>, target: &Path, existing: Existing) -> Result<Baseline, StreamError> {
    let mut from = reader(pieces);
    let manifest = receive_manifest(&mut from)?;
    let placed = place_stream(&GO_ON, &manifest, &mut from, to(target, existing))?;
    from.finish().map_err(StreamError::Cut)?;
    Ok(Baseline::of_placed(&manifest, &placed))
}

fn to(target: &Path, existing: Existing) -> PlaceAt<'_> {
    PlaceAt { target, below: Path::new(""), existing, owner: None }
}

fn various(scene: &Scene) {
    for n in 0..700_usize {
        scene.write(format!("d{}/e{}/f{n}", n % 7, n % 3), &vec![n as u8; n * 37]);
    }
    for (name, byte) in [("large", 1), ("again", 1), ("d0/again", 1), ("d1/other", 2)] {
        scene.write(name, &vec![byte; 3 * SMALL as usize + 5]);
    }
    scene.write("unreadable", &vec![3; SMALL as usize]);
    scene.write("unreadable-again", &vec![3; SMALL as usize]);
    scene.write("empty", b"");
    scene.write(std::ffi::OsStr::from_bytes(b"\xff odd\n"), b"odd");
    fs::create_dir_all(scene.source().join("void/inner")).unwrap();
    symlink("../nowhere", scene.source().join("d0/link")).unwrap();
    for (path, mode) in [("large", 0o755), ("d1/other", 0o600), ("d2", 0o700), ("unreadable", 0o200), ("void", 0o555)] {
        fs::set_permissions(scene.source().join(path), Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn a_tree_comes_out_of_a_stream_as_it_went_in() {
    let scene = Scene::new();
    various(&scene);
    let (manifest, pieces) = put_pieces(&scene);
    let baseline = put(pieces.clone(), &scene.at("job"), Existing::Refuse).unwrap();
    let there = snapshot(&scene.at("job"), &SnapshotOptions::everything()).unwrap();
    assert_eq!(there.digest(), manifest.digest());
    assert!(baseline.compare(&scene.at("job")).unwrap().is_empty());
    assert!(put(pieces.clone(), &scene.at("job"), Existing::Refuse).is_err(), "it stands there already");
    fs::write(scene.at("job").join("large"), "x").unwrap();
    put(pieces, &scene.at("job"), Existing::Replace).unwrap();
    let there = snapshot(&scene.at("job"), &SnapshotOptions::everything()).unwrap();
    assert_eq!(there.digest(), manifest.digest());
}

#[test]
fn a_directory_becomes_a_tree_and_its_blobs_on_the_other_side() {
    let scene = Scene::new();
    various(&scene);
    let expected = scene.snapshot();
    let taking = Taking::find(&scene.source(), Path::new(""), false).unwrap().unwrap();
    assert_eq!(taking.size(), expected.manifest().size());
    let sent = pieces(|mut to| taking.send(&GO_ON, &mut to)).unwrap();
    let told = Mutex::new(Vec::new());
    let mut from = reader(sent.clone());
    let gathered = gather(&mut from, &scene.blobs, MOST, &|blob| told.lock().unwrap().push(blob)).unwrap();
    from.finish().unwrap();
    assert_eq!(gathered.tree.digest, expected.digest());
    assert_eq!(gathered.tree.manifest, *expected.manifest());
    assert_eq!(scene.blobs.read(expected.digest()).unwrap().unwrap(), expected.encoded());
    let mut told = told.into_inner().unwrap();
    told.sort();
    told.dedup();
    assert_eq!(told, expected.manifest().blobs());
    scene.blobs.trim(0).unwrap();
    materialise(&gathered.tree.manifest, &scene.blobs, &scene.at("again"), Existing::Refuse).unwrap();
    assert_eq!(snapshot(&scene.at("again"), &SnapshotOptions::everything()).unwrap().digest(), expected.digest());
    let refused = gather(&mut reader(sent), &scene.blobs, 1_000, &|_| ()).unwrap_err();
    assert!(matches!(refused, StreamError::TooLarge { most: 1_000, .. }));
    drop(gathered);
    scene.blobs.trim(0).unwrap();
    assert!(scene.blobs.entries().unwrap().is_empty());
}

#[test]
fn what_is_taken_is_what_a_snapshot_takes() {
    let scene = Scene::new();
    scene.write("dir/inner/file", b"x");
    scene.write("dir/large", &vec![7; 100_000]);
    symlink("inner", scene.source().join("dir/link")).unwrap();
    for path in ["dir", "dir/inner/file", "dir/link", "dir/large"] {
        for named in [false, true] {
            let taking = Taking::find(&scene.source(), Path::new(path), named).unwrap().unwrap();
            let sent = pieces(|mut to| taking.send(&GO_ON, &mut to)).unwrap();
            let gathered = gather(&mut reader(sent), &scene.blobs, MOST, &|_| ()).unwrap();
            let options = SnapshotOptions { named, ..SnapshotOptions::everything() };
            let expected = snapshot(&scene.source().join(path), &options).unwrap();
            assert_eq!(gathered.tree.digest, expected.digest(), "{path} {named}");
        }
    }
    assert!(Taking::find(&scene.source(), Path::new("nothing"), true).unwrap().is_none());
    assert!(Taking::find(&scene.source(), Path::new("nothing/there"), true).unwrap().is_none());
}

#[test]
fn links_lead_nowhere_for_who_takes() {
    let scene = Scene::new();
    fs::create_dir(scene.at("outside")).unwrap();
    fs::write(scene.at("outside").join("secret"), "s").unwrap();
    symlink(scene.at("outside"), scene.source().join("way")).unwrap();
    for path in ["way/secret", "../outside", "../outside/secret", "/etc/passwd"] {
        let found = Taking::find(&scene.source(), Path::new(path), true);
        assert!(matches!(found, Err(StreamError::Take(_))), "{path}");
    }
}

#[test]
fn what_changes_while_it_is_taken_is_an_error() {
    let scene = Scene::new();
    scene.write("file", &vec![1; 200_000]);
    let taking = Taking::find(&scene.source(), Path::new(""), false).unwrap().unwrap();
    for content in [vec![1; 200_001], vec![2; 200_000], vec![1; 5]] {
        scene.write("file", &content);
        let error = pieces(|mut to| taking.send(&GO_ON, &mut to)).unwrap_err();
        assert!(matches!(error, StreamError::Take(TakingError::Changing { .. })), "{error}");
    }
    let stopped = AtomicBool::new(true);
    let error = pieces(|mut to| taking.send(&stopped, &mut to)).unwrap_err();
    assert!(matches!(error, StreamError::Take(TakingError::Stopped)));
}

#[test]
fn a_stream_that_is_cut_anywhere_is_an_error_and_may_be_repeated() {
    let scene = Scene::new();
    various(&scene);
    let (manifest, pieces) = put_pieces(&scene);
    assert!(pieces.len() > 5);
    for length in (0..pieces.len()).step_by(7).chain([pieces.len() - 1]) {
        let cut = put(pieces[..length].to_vec(), &scene.at("job"), Existing::Replace);
        assert!(matches!(cut, Err(StreamError::Cut(_))), "{length}");
        assert!(
            gather(&mut reader(pieces[..length].to_vec()), &scene.blobs, MOST, &|_| ()).is_err()
                || length + 1 == pieces.len()
        );
    }
    put(pieces, &scene.at("job"), Existing::Replace).unwrap();
    let there = snapshot(&scene.at("job"), &SnapshotOptions::everything()).unwrap();
    assert_eq!(there.digest(), manifest.digest());
    let left = fs::read_dir(scene.at("blobs").join(".partial")).unwrap().count();
    assert_eq!(left, 0, "nothing half stays behind");
}

#[test]
fn bytes_that_are_not_the_trees_are_refused() {
    let scene = Scene::new();
    scene.write("a", b"small");
    scene.write("b", &vec![1; SMALL as usize]);
    let tree = scene.snapshot();
    let mut plain = Vec::new();
    send_manifest(tree.manifest(), &mut plain).unwrap();
    let start = plain.len();
    send_contents(tree.manifest(), &Wanted::All, &tree, &mut plain).unwrap();
    assert_eq!(plain.len(), start + 5 + SMALL as usize);
    for at in [start, start + 5, plain.len() - 1] {
        let mut wrong = plain.clone();
        wrong[at] ^= 1;
        let mut from = &wrong[..];
        let manifest = receive_manifest(&mut from).unwrap();
        let target = scene.at("job");
        let refused = place_stream(&GO_ON, &manifest, &mut from, to(&target, Existing::Replace)).unwrap_err();
        assert!(matches!(refused, StreamError::Damaged { .. }), "{refused}");
        let path = if at == start { "a" } else { "b" };
        assert!(!target.join(path).exists(), "what is wrong isn't there");
    }
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend(b"executr tree 1\n");
    assert!(matches!(receive_manifest(&mut &huge[..]), Err(StreamError::Manifest(_))));
    assert!(matches!(receive_manifest(&mut &plain[..start - 1]), Err(StreamError::Cut(_))));
    let nowhere = send_contents(tree.manifest(), &Wanted::All, &scene.blobs, &mut io::sink());
    assert!(matches!(nowhere, Err(StreamError::Missing(_))));
}

#[test]
fn only_what_is_wanted_goes_over() {
    let scene = Scene::new();
    various(&scene);
    let tree = scene.snapshot();
    let wanted = Wanted::of(tree.manifest(), |path, _| path.starts_with("d3"));
    let mut sent = Vec::new();
    send_contents(tree.manifest(), &wanted, &tree, &mut sent).unwrap();
    let expected: Vec<u8> = tree
        .manifest()
        .files()
        .filter(|(path, _)| path.starts_with("d3"))
        .flat_map(|(path, _)| fs::read(scene.source().join(path)).unwrap())
        .collect();
    assert_eq!(sent, expected);
    for hostile in [vec![0xff; 10_000], [vec![0; 200], vec![1]].concat()] {
        let refused = send_contents(tree.manifest(), &Wanted::Some(hostile), &tree, &mut io::sink());
        assert!(matches!(refused, Err(StreamError::Foreign)));
    }
    assert!(send_contents(tree.manifest(), &Wanted::Some(vec![0; 200]), &tree, &mut io::sink()).is_ok());
}

#[test]
fn a_part_of_a_tree_goes_over_like_a_whole_one() {
    let scene = Scene::new();
    various(&scene);
    let tree = scene.snapshot();
    let part = tree.manifest().part(|entry| {
        let rest = entry.path.strip_prefix("d1").ok().filter(|rest| !rest.as_os_str().is_empty());
        rest.map(|rest| (0, Path::new("only").join(rest)))
    });
    let part = part.unwrap();
    let sent = pieces(|mut to| {
        send_manifest(&part, &mut to)?;
        send_contents(&part, &Wanted::All, &tree, &mut to)
    });
    put(sent.unwrap(), &scene.at("job"), Existing::Refuse).unwrap();
    let there = snapshot(&scene.at("job/only"), &SnapshotOptions::everything()).unwrap();
    let expected = snapshot(&scene.source().join("d1"), &SnapshotOptions::everything()).unwrap();
    assert_eq!(there.digest(), expected.digest());
}

#[test]
fn a_tree_goes_below_a_directory_and_never_out_of_it() {
    let scene = Scene::new();
    scene.write("file", b"x");
    let tree = scene.snapshot();
    let mut sent = Vec::new();
    send_contents(tree.manifest(), &Wanted::All, &tree, &mut sent).unwrap();
    fs::create_dir_all(scene.at("outside")).unwrap();
    fs::create_dir_all(scene.at("job")).unwrap();
    symlink(scene.at("outside"), scene.at("job").join("way")).unwrap();
    let job = scene.at("job");
    let owner = executr_tree::Owner { uid: 4_711, gid: 4_712 };
    let put = |below: &str, owner| {
        let to = PlaceAt { target: &job, below: Path::new(below), existing: Existing::Replace, owner };
        place_stream(&GO_ON, tree.manifest(), &mut &sent[..], to)
    };
    put("a/b", None).unwrap();
    assert_eq!(fs::read(job.join("a/b/file")).unwrap(), b"x");
    for out in ["way", "way/in", "../outside", "/", "a/../../outside"] {
        assert!(put(out, None).is_err(), "{out}");
    }
    assert_eq!(fs::read_dir(scene.at("outside")).unwrap().count(), 0);
    if put("theirs", Some(owner)).is_ok() {
        for path in ["theirs", "theirs/file"] {
            let found = fs::symlink_metadata(job.join(path)).unwrap();
            assert_eq!((found.uid(), found.gid()), (4_711, 4_712), "{path}");
        }
    }
}

#[test]
fn nothing_is_put_through_a_link() {
    let scene = Scene::new();
    scene.write("dir/file", b"new");
    scene.write("dir/large", &vec![1; SMALL as usize]);
    let (_, pieces) = put_pieces(&scene);
    fs::create_dir_all(scene.at("outside")).unwrap();
    fs::create_dir_all(scene.at("job")).unwrap();
    symlink(scene.at("outside"), scene.at("job").join("dir")).unwrap();
    assert!(put(pieces, &scene.at("job"), Existing::Replace).is_err());
    assert_eq!(fs::read_dir(scene.at("outside")).unwrap().count(), 0);
}

#[test]
fn any_bytes_are_read_or_refused() {
    let mut seed = 7_u64;
    let scene = Scene::new();
    for round in 0..300 {
        let mut bytes = b"\x30\0\0\0\0\0\0\0executr tree 1\n".to_vec();
        for _ in 0..80 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((seed >> 33) as u8);
        }
        let mut from = &bytes[..];
        if let Ok(manifest) = receive_manifest(&mut from) {
            let _ = place_stream(&GO_ON, &manifest, &mut from, to(&scene.at(&format!("job{round}")), Existing::Refuse));
        }
        let mut rest = Vec::new();
        let _ = from.read_to_end(&mut rest);
    }
}
