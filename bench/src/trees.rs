//! Directories to make trees of, and what is compared with.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A source of numbers that differ and are the same in every run (SplitMix64, Steele et al. 2014).
#[derive(Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// So many bytes that can't be made shorter.
    #[must_use]
    pub fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.draw().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// The files of a repository: `files` of them, 20 a directory, mostly of some kilobytes, made of the words of `text`.
///
/// # Errors
/// When they can't be written.
pub fn repository(at: &Path, files: usize, text: &[u8]) -> io::Result<()> {
    let mut numbers = Numbers(7);
    for file in 0..files {
        let (directory, above) = (file / 20, file / 400);
        let path = at.join(format!("part{above}/module{directory}"));
        fs::create_dir_all(&path)?;
        // Mean 5 KiB; one in two hundred is large.
        let length = if numbers.draw().is_multiple_of(200) { 100_000 } else { 200 + numbers.draw() as usize % 10_000 };
        let from = numbers.draw() as usize % (text.len().saturating_sub(length).max(1));
        let mut content = text[from..(from + length).min(text.len())].to_vec();
        content.extend(file.to_string().bytes());
        fs::write(path.join(format!("file{file}.rs")), content)?;
    }
    git(at, &["init", "-q"])?;
    fs::write(at.join(".gitignore"), "target/\n*.o\n")?;
    git(at, &["add", "-A"])?;
    git(at, &["commit", "-q", "-m", "all"])
}

/// Runs git there.
///
/// # Errors
/// When it fails.
pub fn git(at: &Path, arguments: &[&str]) -> io::Result<()> {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=b", "-c", "user.email=b@example.com"]).args(arguments).current_dir(at);
    succeed(command.stdout(Stdio::null()))
}

/// Runs a command to its good end.
///
/// # Errors
/// When it can't be started, or fails.
pub fn succeed(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} ended with {status}"))) }
}

/// The text of this project's sources, for something that reads like sources.
///
/// # Errors
/// When they can't be read.
pub fn source_text(root: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut folders = vec![root.join("crates")];
    while let Some(folder) = folders.pop() {
        let mut paths =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        paths.sort();
        for path in paths {
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.extend(fs::read(path)?);
            }
        }
    }
    Ok(text)
}

/// A directory of `mib` MiB, half text and half noise, in files from small to large.
///
/// # Errors
/// When it can't be written.
pub fn artifact(at: &Path, mib: usize, text: &[u8]) -> io::Result<()> {
    let mut numbers = Numbers(11);
    // Text that repeats itself only far apart would be found by a large window; its pieces are shuffled.
    let mut piece = |length: usize| {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let from = numbers.draw() as usize % (text.len() - 4_096);
            bytes.extend_from_slice(&text[from..from + 1_024 + numbers.draw() as usize % 3_000]);
        }
        bytes.truncate(length);
        bytes
    };
    let half = (mib * 512) << 10;
    let mut noise = Numbers(13);
    for (name, is_text) in [("text", true), ("noise", false)] {
        let mut left = half;
        let mut number = 0_usize;
        while left > 0 {
            // One large file for every 600 small ones.
            let length = if number.is_multiple_of(600) { 16 << 20 } else { 4_000 + number * 37 % 24_000 }.min(left);
            let directory = at.join(format!("{name}/{}", number / 100));
            fs::create_dir_all(&directory)?;
            let bytes = if is_text { piece(length) } else { noise.noise(length) };
            fs::File::create(directory.join(number.to_string()))?.write_all(&bytes)?;
            left -= length;
            number += 1;
        }
    }
    Ok(())
}

/// Removes a directory if it is there.
///
/// # Errors
/// When it can't be removed.
pub fn remove(path: &PathBuf) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
