//! Giving a file the bytes of another one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

/// Gives a new file the first `size` bytes of another: shared with it where the filesystem can, else copied by the kernel,
/// else by hand.
pub(crate) fn copy_file(from: &File, to: &mut File, size: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(&*to, from).is_ok() {
        return Ok(());
    }
    let mut offset = 0;
    let mut buffer = Vec::new();
    while offset < size {
        let most = usize::try_from(size - offset).unwrap_or(usize::MAX).min(1 << 30);
        if buffer.is_empty() {
            match rustix::fs::copy_file_range(from, Some(&mut offset), &*to, None, most) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                // Not between all filesystems, and not in every sandbox.
                Err(_) => buffer.resize(256 << 10, 0),
            }
            continue;
        }
        let most = most.min(buffer.len());
        match from.read_at(&mut buffer[..most], offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                to.write_all(&buffer[..read])?;
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
