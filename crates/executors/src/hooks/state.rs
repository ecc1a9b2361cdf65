//! What hooks leave to later ones of their level: exported variables and the directory they ended in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Variables that bash sets by itself, or that are told anew each time.
const OWN: [&[u8]; 5] = [b"_", b"SHLVL", b"PWD", b"OLDPWD", b"BASHOPTS"];

/// What hooks left so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Left {
    /// Where the next hook starts.
    pub(super) directory: PathBuf,
    /// Variables that were exported or (`None`) taken away.
    exports: BTreeMap<Bytes, Option<Bytes>>,
}

/// What a hook says at its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) code: i32,
    /// The line that failed; 0 when none did.
    pub(super) line: u32,
    directory: PathBuf,
    variables: BTreeMap<Bytes, Bytes>,
}

impl Said {
    /// Reads what the driver wrote; `None` when it is something else.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == 0);
        let mut number = || std::str::from_utf8(parts.next()?).ok();
        let (code, line) = (number()?.parse().ok()?, number()?.parse().ok()?);
        let directory = Path::new(OsStr::from_bytes(parts.next()?)).to_owned();
        let variables = parts.filter_map(split).collect();
        Some(Self { code, line, directory, variables })
    }
}

fn split(variable: &[u8]) -> Option<(Bytes, Bytes)> {
    let equals = variable.iter().position(|byte| *byte == b'=')?;
    Some((Bytes::copy_from_slice(&variable[..equals]), Bytes::copy_from_slice(&variable[equals + 1..])))
}

fn variables(env: &[Bytes]) -> BTreeMap<Bytes, Bytes> {
    env.iter().filter_map(|variable| split(variable)).collect()
}

impl Left {
    pub(super) fn in_directory(directory: PathBuf) -> Self {
        Self { directory, exports: BTreeMap::new() }
    }

    /// Notes what a hook left that was started with `env`.
    pub(super) fn note(&mut self, said: Said, env: &[Bytes]) {
        self.directory = said.directory;
        let before = variables(env);
        for (name, value) in &said.variables {
            if !OWN.contains(&&name[..]) && before.get(name) != Some(value) {
                self.exports.insert(name.clone(), Some(value.clone()));
            }
        }
        for name in before.into_keys().filter(|name| !said.variables.contains_key(name)) {
            self.exports.insert(name, None);
        }
    }

    /// What a hook or a step finds: what hooks exported goes over the `base`, what is declared over both.
    pub(super) fn environment(&self, base: &[Bytes], env: &[Bytes]) -> Vec<Bytes> {
        if self.exports.is_empty() {
            return env.to_vec();
        }
        let (base, mut all) = (variables(base), variables(env));
        for (name, value) in &self.exports {
            let declared = all.get(name).is_some_and(|value| base.get(name) != Some(value));
            match value {
                _ if declared => {}
                Some(value) => drop(all.insert(name.clone(), value.clone())),
                None => drop(all.remove(name)),
            }
        }
        all.into_iter().map(|(name, value)| [&name[..], b"=", &value[..]].concat().into()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &[&str]) -> Vec<Bytes> {
        variables.iter().map(|variable| Bytes::copy_from_slice(variable.as_bytes())).collect()
    }

    fn said(variables: &[&str]) -> Said {
        let text = format!("0\0{}\0/there\0{}\0", 0, variables.join("\0"));
        Said::parse(text.as_bytes()).expect("whole")
    }

    #[test]
    fn exports_go_over_the_base_and_below_what_is_declared() {
        let base = env(&["PATH=/bin", "A=base", "GONE=x"]);
        let mut left = Left::in_directory("/here".into());
        left.note(said(&["PATH=/opt:/bin", "A=base", "B=hook\nline", "C=hook", "SHLVL=1", "_=/bin/x"]), &base);
        assert_eq!(left.directory, Path::new("/there"));
        let found = left.environment(&base, &env(&["PATH=/bin", "A=base", "GONE=x", "C=declared", "D=declared"]));
        assert_eq!(found, env(&["A=base", "B=hook\nline", "C=declared", "D=declared", "PATH=/opt:/bin"]));
    }

    #[test]
    fn what_no_driver_wrote_says_nothing() {
        for text in [&b""[..], b"x\0y", b"1\0two\0/\0"] {
            assert_eq!(Said::parse(text), None);
        }
    }
}
