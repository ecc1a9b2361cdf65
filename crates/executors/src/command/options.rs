//! What a workflow says of its argv.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use executr_spec::workflow::{Placeholder, filled};
use serde::Deserialize;

/// The settings of an executor of kind `command`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CommandOptions {
    /// The program and its arguments, with placeholders.
    pub argv: Vec<String>,
    /// Where the agent makes job directories, where it is: not a directory of this machine. The agent serves its protocol
    /// then. Without, both see the job directory at the same path.
    #[serde(default)]
    pub directory: Option<PathBuf>,
}

/// What takes the place of placeholders that say for whom an argv is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The run's id; empty without one.
    pub run_id: String,
    /// The job's id.
    pub job_id: String,
    /// The job's name in its workflow.
    pub job_name: String,
    /// Which attempt it is.
    pub attempt: u32,
}

impl CommandOptions {
    /// Its first word, for messages.
    pub(super) fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// The argv as it is started.
    pub(super) fn words(&self, given: &Given, agent: &Path, directory: &Path, programs: &Path) -> Vec<Bytes> {
        let value = |placeholder| -> Vec<u8> {
            match placeholder {
                Placeholder::Agent => agent.as_os_str().as_bytes().to_vec(),
                Placeholder::JobDirectory => directory.as_os_str().as_bytes().to_vec(),
                Placeholder::Programs => programs.as_os_str().as_bytes().to_vec(),
                Placeholder::RunId => given.run_id.clone().into_bytes(),
                Placeholder::JobId => given.job_id.clone().into_bytes(),
                Placeholder::JobName => given.job_name.clone().into_bytes(),
                Placeholder::Attempt => given.attempt.to_string().into_bytes(),
            }
        };
        self.argv.iter().map(|word| filled(word, value).into()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_all_else_stays() {
        let argv = ["x", "{agent}", "--at={job_directory}:{job_directory}", "{run_id}/{job_id}/{job_name}/{attempt}"];
        let argv = [&argv[..], &["{programs}", "${agent}", "{}", "a b"]].concat();
        let options = CommandOptions { argv: argv.into_iter().map(str::to_owned).collect(), directory: None };
        let given = Given { run_id: "r".to_owned(), job_id: "j".to_owned(), job_name: "build".to_owned(), attempt: 2 };
        let words = options.words(&given, Path::new("/a"), Path::new("/d"), Path::new("/p"));
        assert_eq!(words, ["x", "/a", "--at=/d:/d", "r/j/build/2", "/p", "${agent}", "{}", "a b"]);
    }
}
