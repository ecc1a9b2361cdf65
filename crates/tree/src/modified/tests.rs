//! Directories that jobs have changed, packed and unpacked elsewhere.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use executr_spec::workflow::ArchiveKind;

use super::*;
use crate::Baseline;

const KINDS: [ArchiveKind; 2] = [ArchiveKind::TarZst, ArchiveKind::TarS2];

fn packed(directory: &Path, before: &Baseline, kind: ArchiveKind) -> Vec<u8> {
    let changes = before.compare(directory).unwrap();
    let mut archive = Vec::new();
    pack_modified(directory, changes.all(), kind, &mut archive).unwrap();
    archive
}

#[test]
fn what_a_job_did_arrives_elsewhere() {
    let (job, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |path: &str| job.path().join(path);
    fs::create_dir_all(at("kept/deep")).unwrap();
    for path in ["kept/same", "changed", "gone", "kept/deep/gone"] {
        fs::write(at(path), "before").unwrap();
    }
    let before = Baseline::record(job.path()).unwrap();
    fs::write(at("changed"), "afterwards").unwrap();
    fs::remove_file(at("gone")).unwrap();
    fs::remove_dir_all(at("kept/deep")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff\nname");
    let long = "l".repeat(200);
    fs::create_dir(at(&long)).unwrap();
    fs::write(at(&long).join(odd), "odd").unwrap();
    fs::set_permissions(at(&long).join(odd), fs::Permissions::from_mode(0o501)).unwrap();
    fs::create_dir(at("closed")).unwrap();
    fs::write(at("closed/in"), "in").unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    let holed = fs::File::create(at("holed")).unwrap();
    holed.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holed, b"end", (64 << 20) - 3).unwrap();
    let has_attributes =
        rustix::fs::setxattr(at("changed"), "user.note", b"\0\xff", rustix::fs::XattrFlags::empty()).is_ok();
    for kind in KINDS {
        let archive = packed(job.path(), &before, kind);
        assert!(archive.len() < 1 << 20, "holes are not packed");
        let target = output.path().join(kind.as_str());
        let unpacked = unpack_modified(&archive[..], kind, &target).unwrap();
        assert_eq!(unpacked.files, 5);
        assert_eq!(unpacked.deleted, ["gone", "kept/deep", "kept/deep/gone"].map(PathBuf::from));
        let found = |path: &str| target.join(path);
        assert_eq!(fs::read_to_string(found("changed")).unwrap(), "afterwards");
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&found(&long).join(odd)), mode(&found("closed"))), (0o501, 0o500));
        assert_eq!(fs::read_link(found("link")).unwrap(), Path::new("/etc/passwd"));
        let holed = fs::metadata(found("holed")).unwrap();
        assert!(holed.len() == 64 << 20 && holed.blocks() * 512 < 1 << 20, "{} blocks", holed.blocks());
        assert!(fs::read(found("holed")).unwrap().ends_with(b"\0end"));
        assert!(!found("kept").exists() && !found(DELETED).exists());
        if has_attributes {
            let mut value = [0; 8];
            let length = rustix::fs::getxattr(found("changed"), "user.note", &mut value[..]).unwrap();
            assert_eq!(&value[..length], b"\0\xff");
        }
    }
}

#[test]
fn other_programs_read_it() {
    let job = tempfile::tempdir().unwrap();
    fs::write(job.path().join("gone"), "").unwrap();
    let before = Baseline::record(job.path()).unwrap();
    fs::remove_file(job.path().join("gone")).unwrap();
    fs::write(job.path().join("new"), "new").unwrap();
    let archive = packed(job.path(), &before, ArchiveKind::TarZst);
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut zstd::Decoder::new(&archive[..]).unwrap(), &mut tar).unwrap();
    let file = job.path().join("x.tar");
    fs::write(&file, tar).unwrap();
    let listed = std::process::Command::new("tar").arg("tf").arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), format!("new\n{DELETED}\n"));
}

#[test]
fn what_is_there_is_replaced_and_no_link_is_followed() {
    let (job, output, elsewhere) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before = Baseline::record(job.path()).unwrap();
    fs::create_dir_all(job.path().join("way/deep")).unwrap();
    fs::write(job.path().join("way/deep/file"), "new").unwrap();
    fs::write(job.path().join("file"), "new").unwrap();
    fs::write(elsewhere.path().join("file"), "theirs").unwrap();
    symlink(elsewhere.path(), output.path().join("way")).unwrap();
    symlink(elsewhere.path().join("file"), output.path().join("file")).unwrap();
    let archive = packed(job.path(), &before, ArchiveKind::TarZst);
    unpack_modified(&archive[..], ArchiveKind::TarZst, output.path()).unwrap();
    assert_eq!(fs::read_to_string(output.path().join("way/deep/file")).unwrap(), "new");
    assert_eq!(fs::read_to_string(output.path().join("file")).unwrap(), "new");
    assert_eq!(fs::read_to_string(elsewhere.path().join("file")).unwrap(), "theirs");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn hostile_archives_are_refused() {
    let output = tempfile::tempdir().unwrap();
    let target = output.path().join("in");
    let archive = |path: &[u8], kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.extend([0; 1024]);
        zstd::encode_all(&tar[..], 1).unwrap()
    };
    for (path, kind) in [
        (&b"../out"[..], tar::EntryType::Regular),
        (b"/etc/out", tar::EntryType::Regular),
        (b"a/../../out", tar::EntryType::Directory),
        (b"node", tar::EntryType::Char),
        (b"hard", tar::EntryType::Link),
        (b".", tar::EntryType::Regular),
    ] {
        let error = unpack_modified(&archive(path, kind)[..], ArchiveKind::TarZst, &target).unwrap_err();
        assert!(matches!(error, ModifiedError::Odd { .. }), "{error}");
    }
    let whole = archive(b"fine", tar::EntryType::Regular);
    assert!(unpack_modified(&whole[..whole.len() / 2], ArchiveKind::TarZst, &target).is_err());
    assert!(unpack_modified(&b"no archive"[..], ArchiveKind::TarS2, &target).is_err());
}
