//! Layers as nobody should make them, and those people make.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use executr_spec::Digest;
use tar::{Builder, EntryType, Header};

use super::{LayerError, Limits, Ownership, Refusal, unpack};

fn header(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_uid(12);
    header.set_gid(34);
    header.set_mtime(1_000_000_000);
    header
}

/// An archive, entry by entry, with names nobody checked.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn entry(mut self, name: &str, kind: EntryType, link: &str, content: &[u8]) -> Self {
        let mut header = header(name.as_bytes(), kind, content.len() as u64);
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, "", content)
    }

    fn directory(self, name: &str) -> Self {
        self.entry(name, EntryType::Directory, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, target, b"")
    }

    fn attribute(self, name: &str, attribute: &str, value: &str) -> Self {
        let text = format!(" SCHILY.xattr.{attribute}={value}\n");
        let mut length = text.len() + 1;
        while length.to_string().len() + text.len() != length {
            length += 1;
        }
        self.entry("x", EntryType::XHeader, "", format!("{length}{text}").as_bytes()).file(name, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    fn into(self, directory: &Path) -> Result<super::unpack::Unpacked, LayerError> {
        into(&self.end(), directory, Limits { bytes: 1 << 20, entries: 20 })
    }
}

fn into(bytes: &[u8], directory: &Path, limits: Limits) -> Result<super::unpack::Unpacked, LayerError> {
    let opened = File::open(directory).unwrap();
    unpack(Digest::of(bytes), bytes, opened.as_fd(), Ownership::of_this_process(), limits)
}

fn refused(layer: Layer) -> String {
    let temp = tempfile::tempdir().unwrap();
    let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    let error = layer.into(&root).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{error}");
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept", "{error}");
    assert!(error.to_string().starts_with("layer sha256:"), "{error}");
    error.to_string()
}

#[test]
fn nothing_leaves_the_root() {
    let new = Layer::default;
    for (layer, entry, why) in [
        (new().file("../outside/new", b"x"), "../outside/new", "leads out"),
        (new().file("a/../../outside/new", b"x"), "a/../../outside/new", "leads out"),
        (new().file("/outside/new", b"x"), "/outside/new", "leads out"),
        (new().symlink("a", "../outside").file("a/new", b"x"), "a/new", "symbolic link"),
        (new().symlink("a", "../outside").file("a/kept", b"x"), "a/kept", "symbolic link"),
        (new().symlink("a", "../outside").directory("a/new/deep"), "a/new/deep", "symbolic link"),
        (new().symlink("a", "../outside").file("a/.wh.kept", b""), "a/.wh.kept", "symbolic link"),
        (new().symlink("a", "../outside").file("a/.wh..wh..opq", b""), "a/.wh..wh..opq", "symbolic link"),
        (new().symlink("b", ".").symlink("b/a", "..").file("b/a/outside/new", b"x"), "b/a", "symbolic link"),
        (new().entry("a", EntryType::Link, "../outside/kept", b""), "a", "leads out"),
        (new().symlink("b", "../outside").entry("a", EntryType::Link, "b/kept", b""), "a", "doesn't have before"),
        (new().file("a/.wh...", b""), "a/.wh...", "leads out"),
        (new().file("a", b"").file("a/b", b""), "a/b", "no directory"),
        (new().file("a/b", b"").file("a", b""), "a`", "has a directory"),
        (new().entry("a", EntryType::Link, "nothing", b""), "a", "doesn't have before"),
        (new().directory("d").entry("a", EntryType::Link, "d", b""), "a", "doesn't have before"),
    ] {
        let error = refused(layer);
        assert!(error.contains(&format!("entry `{entry}")) && error.contains(why), "{entry}: {error}");
    }
}

#[test]
fn devices_marks_of_overlays_and_unknown_kinds_are_refused() {
    let new = Layer::default;
    assert!(refused(new().entry("a", EntryType::Char, "", b"")).contains("device"));
    assert!(refused(new().entry("a/b", EntryType::Block, "", b"")).contains("device"));
    assert!(refused(new().entry("a", EntryType::new(b'Z'), "", b"")).contains("kind 'Z'"));
    for attribute in ["trusted.overlay.redirect", "user.overlay.opaque"] {
        assert!(refused(new().attribute("a", attribute, "/etc")).contains(attribute));
    }
    let temp = tempfile::tempdir().unwrap();
    new().entry("dev/null", EntryType::Char, "", b"").into(temp.path()).unwrap();
    assert!(!temp.path().join("dev/null").exists(), "the runtime has its own");
}

#[test]
fn too_much_is_too_much() {
    let many = (0..21).fold(Layer::default(), |layer, number| layer.directory(&format!("d{number}")));
    assert!(refused(many).contains("more than 20 entries"));
    assert!(refused(Layer::default().file("a", &vec![1; (1 << 20) + 1])).contains("more than 1048576 bytes"));

    // A length that nobody has.
    let mut giant = header(b"giant", EntryType::Regular, u64::MAX / 2);
    giant.set_cksum();
    let temp = tempfile::tempdir().unwrap();
    let error = into(giant.as_bytes(), temp.path(), Limits::default()).unwrap_err();
    assert!(matches!(error.why, Refusal::Bytes(_)), "{error}");

    // A header that would be read into memory.
    let mut long = header(b"x", EntryType::XHeader, 1 << 40);
    long.set_cksum();
    let bytes = [long.as_bytes().as_slice(), &vec![b'a'; 8 << 20]].concat();
    let error = into(&bytes, temp.path(), Limits::default()).unwrap_err();
    assert!(matches!(error.why, Refusal::Headers(_)), "{error}");
}

#[test]
fn a_little_that_unpacks_to_a_lot_is_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let layer = Layer::default().file("zeros", &vec![0; 32 << 20]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&layer).unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(gzip.len() < 100_000);
    let limits = Limits { bytes: 1 << 20, entries: 20 };
    for bytes in [gzip, zstd::encode_all(layer.as_slice(), 3).unwrap()] {
        let error = into(&bytes, temp.path(), limits).unwrap_err();
        assert!(matches!(error.why, Refusal::Bytes(_)), "{error}");
    }
    // Behind the archive's end it is stopped too.
    let mut behind = Layer::default().file("a", b"a").end();
    behind.resize(32 << 20, 0);
    let error = into(&zstd::encode_all(behind.as_slice(), 3).unwrap(), temp.path(), limits).unwrap_err();
    assert!(matches!(error.why, Refusal::Bytes(_)), "{error}");
}

#[test]
fn what_is_cut_or_garbled_is_broken() {
    let layer = Layer::default().file("a", &[7; 5000]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let gzip = gzip.finish().unwrap();
    for bytes in [&layer[..3000], &gzip[..gzip.len() / 2], &[1; 600][..]] {
        let temp = tempfile::tempdir().unwrap();
        let error = into(bytes, temp.path(), Limits::default()).unwrap_err();
        assert!(matches!(error.why, Refusal::Broken(_)), "{error}");
    }
}

#[test]
fn modes_owners_times_links_and_holes_come_through() {
    let temp = tempfile::tempdir().unwrap();
    let sparse = [vec![0; 1 << 19], b"end".to_vec()].concat();
    let unpacked = Layer::default()
        .directory("./")
        .directory("d")
        .file("d/f", b"content")
        .entry("d/hard", EntryType::Link, "d/f", b"")
        .symlink("d/soft", "../../anywhere")
        .entry("pipe", EntryType::Fifo, "", b"")
        .file("holes", &sparse)
        .file("d/f2", b"first")
        .file("d/f2", b"second")
        .attribute("d/attributed", "user.note", "kept")
        .into(temp.path())
        .unwrap();
    assert_eq!(unpacked.digest, unpacked.diff_id);
    let at = |name: &str| temp.path().join(name);
    let file = fs::metadata(at("d/f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.nlink()), (0o755, 1_000_000_000, 2));
    if rustix::process::geteuid().is_root() {
        assert_eq!((file.uid(), file.gid()), (12, 34));
    }
    assert_eq!(fs::metadata(at("d")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::read_link(at("d/soft")).unwrap(), Path::new("../../anywhere"));
    assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
    let holes = fs::metadata(at("holes")).unwrap();
    assert_eq!(fs::read(at("holes")).unwrap(), sparse);
    assert!(holes.blocks() * 512 < 200_000, "{}", holes.blocks());
    assert_eq!(fs::read(at("d/f2")).unwrap(), b"second");
    let mut value = [0; 16];
    match rustix::fs::getxattr(at("d/attributed"), "user.note", &mut value) {
        Ok(length) => assert_eq!(&value[..length], b"kept"),
        Err(errno) => assert_eq!(errno, rustix::io::Errno::NOTSUP, "this file system keeps none"),
    }
}

#[test]
fn whiteouts_become_those_of_overlay_mounts() {
    let temp = tempfile::tempdir().unwrap();
    Layer::default()
        .file("d/.wh.gone", b"")
        .file("d/.wh.here", b"")
        .file("d/here", b"new")
        .file("d/stays", b"")
        .file("d/.wh.stays", b"")
        .file("o/.wh..wh..opq", b"")
        .file("o/f", b"")
        .file(".wh.replaced", b"")
        .directory("replaced")
        .directory("later")
        .file(".wh.later", b"")
        .file(".wh..wh.plnk", b"")
        .into(temp.path())
        .unwrap();
    let gone = fs::symlink_metadata(temp.path().join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(temp.path().join("d/here").is_file() && temp.path().join("d/stays").is_file());
    for directory in ["o", "replaced", "later"] {
        let name = Ownership::of_this_process();
        let name = if name == Ownership::Real { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
        let mut value = [0; 4];
        let length = rustix::fs::getxattr(temp.path().join(directory), name, &mut value).unwrap();
        assert_eq!(&value[..length], b"y", "{directory}");
    }
    let odd: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(odd.iter().all(|name| !name.as_bytes().starts_with(b".wh.")), "{odd:?}");
}

#[test]
fn what_another_program_packs_comes_out_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    fs::create_dir_all(from.join("a/very").join("long".repeat(50))).unwrap();
    fs::create_dir(&to).unwrap();
    let odd = from.join(std::ffi::OsStr::from_bytes(b"odd \xff \"'\n name"));
    fs::write(&odd, "odd").unwrap();
    fs::write(from.join("a/very").join("long".repeat(50)).join("f"), "deep").unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o4711)).unwrap();
    let file = File::create(from.join("sparse")).unwrap();
    file.set_len(10 << 20).unwrap();
    let mut builder = Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &from).unwrap();
    let bytes = builder.into_inner().unwrap();
    let unpacked = into(&bytes, &to, Limits::default()).unwrap();
    assert_eq!(unpacked.length, bytes.len() as u64);
    let diff = std::process::Command::new("diff").args(["-r", "--no-dereference"]).arg(&from).arg(&to).status();
    assert!(diff.unwrap().success());
    let mode = fs::metadata(to.join(odd.file_name().unwrap())).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o4711);
    assert!(fs::metadata(to.join("sparse")).unwrap().blocks() < 100);
}
