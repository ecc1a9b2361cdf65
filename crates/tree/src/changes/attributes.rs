//! Extended attributes: those a job may set, read through an open file so that no path is followed.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use executr_spec::Hasher;
use rustix::io::Errno;

/// The most bytes of the names of one file's attributes, and of one attribute's value; the kernel's own limits.
pub(crate) const MAX_LIST: usize = 64 << 10;

/// Names and values of the attributes in the namespaces that mean the same elsewhere, in the order of the names:
/// `user.*`, and the capabilities of a program.
pub(crate) fn read(file: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = [0_u8; 512];
    let listed = match rustix::fs::flistxattr(&file, &mut names[..]) {
        Ok(0) => return Ok(Vec::new()),
        Ok(length) => names[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut names = vec![0; MAX_LIST];
            let length = rustix::fs::flistxattr(&file, &mut names[..])?;
            names.truncate(length);
            names
        }
        Err(Errno::NOTSUP | Errno::PERM) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    let mut value = Vec::new();
    for name in listed.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        if !is_kept(name.to_bytes()) {
            continue;
        }
        value.resize(MAX_LIST, 0);
        match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
            Ok(length) => found.push((name.to_bytes().to_vec(), value[..length].to_vec())),
            // Gone since it was listed, or nobody's business.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether an attribute belongs to a file's content rather than to the machine it is on.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}

/// What stands for a file's attributes: 0 when it has none.
pub(crate) fn fingerprint(file: impl AsFd) -> io::Result<u64> {
    let attributes = read(file)?;
    if attributes.is_empty() {
        return Ok(0);
    }
    let mut hasher = Hasher::default();
    for (name, value) in &attributes {
        for part in [name, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    let digest = hasher.finish().0;
    // Never what stands for none.
    Ok(digest.first_chunk().map_or(1, |first| u64::from_le_bytes(*first)).max(1))
}
