//! Whether this program is the one that was sent.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::HostFault;

/// Compares this program's SHA-256 with what it is to be, in hexadecimal digits.
///
/// # Errors
/// When it is another, or can't be read.
pub fn verify(expected: &str) -> Result<(), HostFault> {
    let program = Path::new("/proc/self/exe");
    let found = digest(program).map_err(HostFault::directory(program))?;
    if found == expected { Ok(()) } else { Err(HostFault::Damaged { expected: expected.to_owned(), found }) }
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            let digits = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(digits);
        }
        hash.update(&buffer[..length]);
    }
}
