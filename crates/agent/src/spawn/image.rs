//! Arguments, environment and directory as `execve` wants them: zero-ended strings and zero-ended arrays of
//! pointers. Kept from task to task, so that a start allocates nothing once the buffers have grown.

use std::ffi::c_char;
use std::ptr;

use executr_agent_protocol::v1::StartTask;
use prost::bytes::Bytes;

/// Where programs are looked for when the job's environment has no PATH.
pub(super) const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The buffers.
#[derive(Debug, Default)]
pub(super) struct Image {
    strings: Vec<u8>,
    starts: Vec<usize>,
    pointers: Vec<*const c_char>,
}

/// What the kernel can't be told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ImageError {
    #[error("no program is named; give at least one argument, the program itself")]
    NoProgram,
    #[error("the directory must be an absolute path")]
    NoDirectory,
    #[error("{what} holds a zero byte, which no program can be given; remove it")]
    Zero { what: String },
    #[error("environment entry {number} has no '=' or no name; write it as NAME=VALUE")]
    NotAVariable { number: usize },
}

/// A prepared image; the pointers are into the buffers it borrows.
#[derive(Debug)]
pub(super) struct Prepared<'image> {
    image: &'image Image,
    directory: usize,
    argv: usize,
    env: usize,
    candidates: usize,
}

impl Image {
    pub(super) fn prepare(&mut self, task: &StartTask) -> Result<Prepared<'_>, ImageError> {
        let program = task.argv.first().filter(|program| !program.is_empty()).ok_or(ImageError::NoProgram)?;
        if task.directory.first() != Some(&b'/') {
            return Err(ImageError::NoDirectory);
        }
        self.strings.clear();
        self.starts.clear();
        self.push(&[&task.directory], || "the directory".into())?;
        for (number, argument) in task.argv.iter().enumerate() {
            self.push(&[argument], || format!("argument {number}"))?;
        }
        for (number, entry) in task.env.iter().enumerate() {
            if entry.iter().position(|byte| *byte == b'=').is_none_or(|at| at == 0) {
                return Err(ImageError::NotAVariable { number });
            }
            self.push(&[entry], || format!("environment entry {number}"))?;
        }
        let candidates = self.starts.len();
        if program.contains(&b'/') {
            self.push(&[program], String::new)?;
        } else {
            for place in search_path(&task.env).split(|byte| *byte == b':') {
                // An empty place is the directory the job starts in, as shells have it.
                let place = if place.is_empty() { b"." } else { place };
                self.push(&[place, b"/", program], || "PATH".into())?;
            }
        }

        // Pointers last: the strings have stopped moving.
        self.pointers.clear();
        let behind_argv = 1 + task.argv.len();
        let mut heads = [0; 4];
        let parts = [0..1, 1..behind_argv, behind_argv..candidates, candidates..self.starts.len()];
        for (head, part) in heads.iter_mut().zip(parts) {
            *head = self.pointers.len();
            self.pointers.extend(self.starts[part].iter().map(|start| self.strings[*start..].as_ptr().cast()));
            self.pointers.push(ptr::null());
        }
        let [directory, argv, env, candidates] = heads;
        Ok(Prepared { image: self, directory, argv, env, candidates })
    }

    fn push(&mut self, parts: &[&[u8]], what: impl FnOnce() -> String) -> Result<(), ImageError> {
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(ImageError::Zero { what: what() });
        }
        self.starts.push(self.strings.len());
        for part in parts {
            self.strings.extend_from_slice(part);
        }
        self.strings.push(0);
        Ok(())
    }
}

impl Prepared<'_> {
    /// The directory, a zero-ended string.
    pub(super) fn directory(&self) -> *const c_char {
        self.image.pointers[self.directory]
    }

    /// The arguments, an array ended by null.
    pub(super) fn argv(&self) -> *const *const c_char {
        self.image.pointers[self.argv..].as_ptr()
    }

    /// The environment, an array ended by null.
    pub(super) fn env(&self) -> *const *const c_char {
        self.image.pointers[self.env..].as_ptr()
    }

    /// Files that may be the program, in the order to try them; an array ended by null.
    pub(super) fn candidates(&self) -> *const *const c_char {
        self.image.pointers[self.candidates..].as_ptr()
    }

    /// One of the candidates by its number.
    pub(super) fn candidate(&self, number: usize) -> &[u8] {
        let pointer = self.image.pointers[self.candidates + number];
        let start = pointer as usize - self.image.strings.as_ptr() as usize;
        let string = &self.image.strings[start..];
        string.split(|byte| *byte == 0).next().unwrap_or(string)
    }
}

/// The value of PATH in an environment, or the default.
pub(super) fn search_path(env: &[Bytes]) -> &[u8] {
    env.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH)
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn task(argv: &[&'static str], env: &[&'static str]) -> StartTask {
        StartTask {
            argv: argv.iter().map(|text| Bytes::from_static(text.as_bytes())).collect(),
            env: env.iter().map(|text| Bytes::from_static(text.as_bytes())).collect(),
            directory: Bytes::from_static(b"/job"),
            ..Default::default()
        }
    }

    fn strings(mut at: *const *const c_char) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            // SAFETY: the arrays under test are ended by null and their strings by zero.
            let string = unsafe {
                if (*at).is_null() {
                    return found;
                }
                CStr::from_ptr(*at)
            };
            found.push(string.to_str().unwrap().to_owned());
            at = at.wrapping_add(1);
        }
    }

    #[test]
    fn everything_lies_where_it_is_said_to() {
        let mut image = Image::default();
        for env in [&["PATH=/a::/b", "X=1=2"][..], &["PATH=/a::/b"][..]] {
            let prepared = image.prepare(&task(&["program", "", "ü"], env)).unwrap();
            assert_eq!(strings(prepared.argv()), ["program", "", "ü"]);
            assert_eq!(strings(prepared.env()), env);
            assert_eq!(strings(prepared.candidates()), ["/a/program", "./program", "/b/program"]);
            assert_eq!(prepared.candidate(1), b"./program");
            // SAFETY: zero-ended, as above.
            assert_eq!(unsafe { CStr::from_ptr(prepared.directory()) }, c"/job");
        }
    }

    #[test]
    fn without_environment_the_default_path_counts() {
        let mut image = Image::default();
        let prepared = image.prepare(&task(&["true"], &[])).unwrap();
        assert!(strings(prepared.env()).is_empty());
        assert_eq!(strings(prepared.candidates()).last().unwrap(), "/bin/true");
    }

    #[test]
    fn a_program_with_a_slash_is_not_looked_for() {
        let mut image = Image::default();
        let prepared = image.prepare(&task(&["./x"], &["PATH=/bin"])).unwrap();
        assert_eq!(strings(prepared.candidates()), ["./x"]);
    }

    #[test]
    fn what_the_kernel_cannot_be_told_is_refused() {
        let mut image = Image::default();
        let mut refused = |argv: &[&'static str], env: &[&'static str]| image.prepare(&task(argv, env)).unwrap_err();
        assert_eq!(refused(&[], &[]), ImageError::NoProgram);
        assert_eq!(refused(&[""], &[]), ImageError::NoProgram);
        assert_eq!(refused(&["a", "b\0"], &[]), ImageError::Zero { what: "argument 1".into() });
        assert_eq!(refused(&["a"], &["A=1", "B=\0"]), ImageError::Zero { what: "environment entry 1".into() });
        for entry in ["", "=x", "x"] {
            assert_eq!(refused(&["a"], &[entry]), ImageError::NotAVariable { number: 0 });
        }
        let relative = StartTask { directory: Bytes::from_static(b"job"), ..task(&["a"], &[]) };
        assert_eq!(image.prepare(&relative).unwrap_err(), ImageError::NoDirectory);
    }
}
