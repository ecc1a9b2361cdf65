//! One process at a time: the directory's lock.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::from_file;
use crate::StoreError;

/// Holds the directory until dropped. The kernel lets go of it when the process ends, however it does.
#[derive(Debug)]
pub(super) struct DirectoryLock(#[expect(dead_code, reason = "held, not used")] File);

impl DirectoryLock {
    /// Takes the lock, or says who has it.
    pub(super) fn take(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(from_file(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Who it is only helps the message; that it is locked is certain without.
                let _ = file.read_to_string(&mut text);
                let holder = if text.trim().is_empty() { "another process".to_owned() } else { text.trim().to_owned() };
                return Err(StoreError::Locked { path: directory.display().to_string(), holder });
            }
            Err(error) => return Err(from_file(&path)(error.into())),
        }
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(holder().as_bytes())
        };
        write().map_err(from_file(&path))?;
        Ok(Self(file))
    }
}

/// This process, as the next opener is told.
fn holder() -> String {
    let pid = std::process::id();
    match std::fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) if !line.is_empty() => {
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let mut text: String = words.join(" ").trim_end().chars().take(200).collect();
            text.retain(|c| !c.is_control());
            format!("process {pid} ({text})")
        }
        _ => format!("process {pid}"),
    }
}
