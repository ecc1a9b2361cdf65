//! Manifests as bytes, and bytes that are none.

use proptest::prelude::*;

use super::*;

fn file(path: &str, mode: u32, content: &[u8]) -> Entry {
    let kind =
        Kind::File(FileEntry { mode, size: content.len() as u64, digest: Digest::of(content), place: Place::Empty });
    Entry { path: path.into(), kind }
}

fn directory(path: &str) -> Entry {
    Entry { path: path.into(), kind: Kind::Directory { mode: 0o755 } }
}

fn link(path: &str, target: &str) -> Entry {
    Entry { path: path.into(), kind: Kind::Symlink { target: target.into() } }
}

fn small_tree() -> Manifest {
    let entries = vec![
        link("z", "../a"),
        file("a/b", 0o644, b"hi\n"),
        directory("a"),
        directory("a/empty"),
        file("a.txt", 0o755, b""),
    ];
    Manifest::new(entries, vec![Digest::of(b"hi\n")]).unwrap()
}

/// The bytes are a promise: what was stored by one version is read by the next.
#[test]
fn the_bytes_of_a_tree_are_these() {
    let tree = small_tree();
    let order: Vec<_> = tree.entries().iter().map(|entry| entry.path.to_str().unwrap()).collect();
    assert_eq!(order, ["a", "a/b", "a/empty", "a.txt", "z"]);
    let mut expected = b"executr tree 1\n\x01".to_vec();
    expected.extend(b"\x01\x01a\xed\x03");
    expected.extend(b"\x02\x01b\xa4\x03\x03");
    expected.extend(Digest::of(b"hi\n").0);
    expected.extend(b"\x01\x05empty\xed\x03\x00\x00");
    expected.extend(b"\x02\x05a.txt\xed\x03\x00");
    expected.extend(Digest::of(b"").0);
    expected.extend(b"\x03\x01z\x04../a\x00");
    expected.extend(b"\x01");
    expected.extend(Digest::of(b"hi\n").0);
    assert_eq!(tree.encode(), expected);
    assert_eq!(Manifest::parse(&expected).unwrap(), tree);
    assert_eq!(tree.digest().to_string(), "a2af117d0a6fbf98b43d354c2be3f277c4e455a021ad1cac2ff612b337cfe845");
}

#[test]
fn a_tree_may_be_one_file_or_nothing() {
    let single = Manifest::new(vec![file("", 0o755, b"x")], vec![Digest::of(b"x")]).unwrap();
    assert!(single.is_single());
    assert_eq!(Manifest::parse(&single.encode()).unwrap(), single);
    let empty = Manifest::new(vec![], vec![]).unwrap();
    assert_eq!(Manifest::parse(&empty.encode()).unwrap(), empty);
    assert!(!empty.is_single());
}

#[test]
fn blobs_are_named_once_and_found() {
    let large = vec![7; SMALL as usize];
    let entries =
        vec![file("a", 0o644, &large), file("b", 0o644, &large), file("c", 0o644, b"c"), file("d", 0o644, b"d")];
    let tree = Manifest::new(entries, vec![Digest::of(b"cd")]).unwrap();
    let mut blobs = vec![Digest::of(&large), Digest::of(b"cd")];
    blobs.sort();
    assert_eq!(tree.blobs(), blobs);
    let Kind::File(d) = &tree.get(Path::new("d")).unwrap().kind else { panic!("a file") };
    assert_eq!(tree.extent(d), Some(Extent { blob: Digest::of(b"cd"), offset: 1, length: 1 }));
}

#[test]
fn what_is_no_tree_is_refused() {
    let pack = vec![Digest::of(b"x")];
    for entries in [
        vec![file("a", 0o644, b"x"), file("a", 0o644, b"x")],
        vec![file("a", 0o644, b"x"), file("a/b", 0o644, b"")],
        vec![file("a/b", 0o644, b"x")],
        vec![directory("a"), directory("a/.."), file("a/../b", 0o644, b"x")],
        vec![file("/a", 0o644, b"x")],
        vec![file("a/", 0o644, b"x")],
        vec![file("./a", 0o644, b"x")],
        vec![file("a\0b", 0o644, b"x")],
        vec![file("a", 0o4755, b"x")],
        vec![file(&"n".repeat(256), 0o644, b"x")],
        vec![file("a", 0o644, b"x"), link("l", "")],
        vec![file("", 0o644, b"x"), file("a", 0o644, b"")],
        vec![directory("")],
    ] {
        let text = format!("{entries:?}");
        assert!(matches!(Manifest::new(entries, pack.clone()), Err(ManifestError::Odd { .. })), "{text}");
    }
    assert!(Manifest::new(vec![file("a", 0o644, b"x")], vec![]).is_err(), "a pack is missing");
}

#[test]
fn hostile_bytes_are_refused() {
    let head = b"executr tree 1\n\x01".as_slice();
    let long_path = {
        let mut bytes = head.to_vec();
        for _ in 0..20 {
            bytes.extend(b"\x01\xff\x01");
            bytes.extend([b'n'; 255]);
            bytes.extend(b"\xed\x03");
        }
        bytes
    };
    for (bytes, what) in [
        ([head, b"\x01\x02..\xed\x03\0\0\0"].concat(), "a way up"),
        ([head, b"\x01\x01.\xed\x03\0\0\0"].concat(), "itself"),
        ([head, b"\x01\x00\xed\x03\0\0\0"].concat(), "no name"),
        ([head, b"\x01\x03a/b\xed\x03\0\0\0"].concat(), "a slash"),
        ([head, b"\x01\x02/a\xed\x03\0\0\0"].concat(), "an absolute path"),
        ([head, b"\x01\x01\0\xed\x03\0\0\0"].concat(), "a NUL"),
        ([head, b"\x03\x01b\x01x\x03\x01a\x01x\0\0"].concat(), "disorder"),
        ([head, b"\x03\x01a\x01x\x03\x01a\x01x\0\0"].concat(), "a name twice"),
        ([head, b"\x01\x01a\xff\x1f\0\0\0"].concat(), "set-user-id"),
        ([head, b"\x01\x81\x00a\xed\x03\0\0\0"].concat(), "a needlessly long number"),
        ([head, b"\x01\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\0\0\0"].concat(), "a huge number"),
        ([head, b"\x09\x01a\0\0"].concat(), "an unknown kind"),
        ([head, b"\0\x01"].concat(), "a pack that is not there"),
        ([head, b"\0\xff\xff\xff\xff\x0f"].concat(), "too many packs"),
        ([head, b"\0\0\0"].concat(), "bytes after the end"),
        (b"executr tree 2\n\x01\0\0".to_vec(), "another version"),
        (Vec::new(), "nothing"),
        (long_path, "a long path"),
    ] {
        assert!(Manifest::parse(&bytes).is_err(), "{what}");
    }
    let tree = small_tree().encode();
    for length in 0..tree.len() {
        assert!(Manifest::parse(&tree[..length]).is_err(), "cut at {length}");
    }
    // As deep as a path can be, and no stack is used for it.
    let mut deep = head.to_vec();
    for _ in 0..2_000 {
        deep.extend(b"\x01\x01d\xed\x03");
    }
    deep.extend([0; 2_002]);
    assert_eq!(Manifest::parse(&deep).unwrap().entries().len(), 2_000);
}

proptest! {
    /// Whatever bytes are read as a tree are the bytes that this tree is written as.
    #[test]
    fn there_is_one_way_to_write_a_tree(at in 0..200_usize, value: u8) {
        let mut bytes = small_tree().encode();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(tree) = Manifest::parse(&bytes) {
            prop_assert_eq!(tree.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Manifest::parse(&[b"executr tree 1\n\x01", &bytes[..]].concat());
    }

    #[test]
    fn the_order_of_entries_given_does_not_matter(order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle()) {
        let tree = small_tree();
        let entries = order.into_iter().map(|n| tree.entries()[n].clone()).collect();
        prop_assert_eq!(Manifest::new(entries, tree.packs().to_vec()).unwrap(), tree);
    }
}
