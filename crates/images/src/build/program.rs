//! Whether a program needs nothing beside itself.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::BuildError;

const INTERPRETER: u32 = 3;

/// Looks at a program's headers (ELF, 64 bits, little-endian): one that names an interpreter needs that, and its libraries.
pub(super) fn check_static(path: &Path) -> Result<(), BuildError> {
    let unfit = |why: &str| BuildError::Unfit { path: path.to_owned(), why: why.to_owned() };
    let mut file = File::open(path).map_err(BuildError::io("open", path))?;
    let mut header = [0; 64];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        read => read.map_err(BuildError::io("read", path))?,
    }
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(unfit("it is no program of 64-bit Linux; add scripts and other files as files, upon a base"));
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let (offset, size, count) = (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    for index in 0..count {
        let mut kind = [0; 4];
        let at = index.checked_mul(size).and_then(|skipped| skipped.checked_add(offset));
        let at = at.ok_or_else(|| unfit("its headers make no sense"))?;
        file.read_exact_at(&mut kind, at).map_err(|_| unfit("its headers make no sense"))?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Err(unfit(
                "it needs libraries beside itself; link it statically, or add it as a file upon a base that has them",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn programs_that_need_more_and_no_programs_are_told_apart() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("program");
        let mut elf = vec![0; 64 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 2, 1);
        fs::write(&path, &elf).unwrap();
        check_static(&path).unwrap();
        elf[64 + 56] = 3;
        fs::write(&path, &elf).unwrap();
        assert!(check_static(&path).unwrap_err().to_string().contains("link it statically"));
        fs::write(&path, &elf[..100]).unwrap();
        assert!(check_static(&path).unwrap_err().to_string().contains("no sense"));
        fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(check_static(&path).unwrap_err().to_string().contains("no program"));
    }
}
