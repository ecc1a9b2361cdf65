//! A layer's archive: times, owners and order fixed.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use executr_tree::Stamp;
use rustix::fs::{Mode, OFlags, fstat};
use tar::{Builder, EntryType, Header};

use super::BuildError;
use super::listing::{Item, Kind, Listing};

/// Only these attributes mean anything in an image.
fn is_kept(attribute: &[u8]) -> bool {
    attribute == b"security.capability" || (attribute.starts_with(b"user.") && !attribute.starts_with(b"user.overlay."))
}

/// Writes all of a listing.
pub(super) fn write(listing: &Listing, into: impl Write) -> Result<(), BuildError> {
    let mut builder = Builder::new(into);
    for (path, item) in &listing.entries {
        // The root is there in any case, and says nothing about the files.
        if !path.as_os_str().is_empty() {
            entry(&mut builder, path, item)?;
        }
    }
    builder.finish().map_err(BuildError::io("write the layer of", Path::new("/")))
}

fn entry(builder: &mut Builder<impl Write>, path: &Path, item: &Item) -> Result<(), BuildError> {
    let from = item.from.as_deref().unwrap_or(path);
    let failed = |error| BuildError::io("pack", from)(error);
    let mut header = Header::new_gnu();
    header.set_mode(item.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match &item.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            let mut name = path.as_os_str().to_owned();
            name.push("/");
            builder.append_data(&mut header, name, io::empty()).map_err(failed)
        }
        Kind::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            builder.append_data(&mut header, path, io::empty()).map_err(failed)
        }
        Kind::Symlink { target } => {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, path, target).map_err(failed)
        }
        Kind::HardLink { of } => {
            header.set_entry_type(EntryType::Link);
            builder.append_link(&mut header, path, of).map_err(failed)
        }
        Kind::File { size } => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(*size);
            let changed = || BuildError::Changed { path: from.to_owned() };
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = rustix::fs::open(from, flags, Mode::empty());
            let file = File::from(file.map_err(|errno| BuildError::io("open", from)(errno.into()))?);
            let is_same = || {
                let stat = fstat(&file).map_err(|errno| BuildError::io("look at", from)(errno.into()))?;
                Ok(item.stamp == Some(Stamp::of(&stat)))
            };
            if !is_same()? {
                return Err(changed());
            }
            attributes(builder, &file, from)?;
            builder.append_data(&mut header, path, (&file).take(*size)).map_err(failed)?;
            // One that was cut short was filled up by nobody: the archive would be wrong from there on.
            if is_same()? { Ok(()) } else { Err(changed()) }
        }
    }
}

fn attributes(builder: &mut Builder<impl Write>, file: &File, from: &Path) -> Result<(), BuildError> {
    let failed = |errno: rustix::io::Errno| BuildError::io("read the attributes of", from)(errno.into());
    let mut names = vec![0; 4096];
    let length = match rustix::fs::flistxattr(file.as_fd(), &mut names[..]) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        length => length.map_err(failed)?,
    };
    let mut kept: Vec<_> = names[..length].split(|byte| *byte == 0).filter(|name| is_kept(name)).collect();
    if kept.is_empty() {
        return Ok(());
    }
    kept.sort_unstable();
    let mut records = Vec::new();
    for name in kept {
        let mut value = vec![0; 64 * 1024];
        let length =
            rustix::fs::fgetxattr(file.as_fd(), std::ffi::OsStr::from_bytes(name), &mut value[..]).map_err(failed)?;
        value.truncate(length);
        let key = format!("SCHILY.xattr.{}", String::from_utf8_lossy(name));
        records.push((key, value));
    }
    let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
    builder.append_pax_extensions(records).map_err(BuildError::io("pack", from))
}
