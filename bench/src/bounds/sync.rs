//! B1: one thread starts `/bin/true` and waits for it, then makes one small write durable.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::child::{Starter, wait};

/// Bytes made durable per child, about what a result takes.
const RECORD: [u8; 256] = [0x42; 256];

/// The mean times of one operation.
#[derive(Debug, Clone, Copy)]
pub struct B1 {
    /// Starting a process and waiting for its end.
    pub spawn: Duration,
    /// Appending 256 bytes and `fdatasync`.
    pub sync: Duration,
}

/// Measures B1 over `count` children, with the file in `directory`.
///
/// # Errors
/// When the file can't be written or the program not be started.
pub fn measure(count: u32, directory: &Path) -> io::Result<B1> {
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("b1"))?;
    let mut starter = Starter::new();
    let mut spawn = Duration::ZERO;
    let mut sync = Duration::ZERO;
    for _ in 0..count {
        let begun = Instant::now();
        wait(starter.start(None)?)?;
        let ended = Instant::now();
        file.write_all(&RECORD)?;
        file.sync_data()?;
        spawn += ended - begun;
        sync += ended.elapsed();
    }
    let each = count.max(1);
    Ok(B1 { spawn: spawn / each, sync: sync / each })
}
