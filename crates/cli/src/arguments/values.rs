//! Values that are more than a word: how they are written and what is said when they are written wrongly.

use std::path::PathBuf;

use clap::ValueEnum;
use executr_api::QueueWeight;
use executr_spec::{JobId, RunId};

/// How a command shows what it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    /// For people: aligned, shortened, with relative times
    Table,
    /// For programs: the API's objects
    Json,
}

/// `NAME=VALUE`; the value may hold further `=`, or nothing.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// `FROM` or `FROM:TO`.
pub(crate) fn selection(text: &str) -> Result<(String, Option<String>), String> {
    let (from, to) = match text.split_once(':') {
        Some((from, to)) => (from, Some(to)),
        None => (text, None),
    };
    if from.is_empty() || to.is_some_and(str::is_empty) {
        return Err("write it as FROM or FROM:TO".to_owned());
    }
    Ok((from.to_owned(), to.map(str::to_owned)))
}

/// `NAME` or `NAME=WEIGHT`.
pub(crate) fn queue_weight(text: &str) -> Result<QueueWeight, String> {
    let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight = weight.parse().ok().filter(|weight| *weight > 0);
    let weight = weight.ok_or("the weight is a whole number, at least 1; write it as NAME or NAME=WEIGHT")?;
    let queue = name.parse().map_err(|error: executr_spec::NameError| error.to_string())?;
    Ok(QueueWeight { queue, weight })
}

/// A job's id, as `executr submit` and `executr list` print it.
pub(crate) fn job_id(text: &str) -> Result<JobId, String> {
    text.parse().map_err(|_| "this is not a job's id; `executr list` shows them".to_owned())
}

/// A run's id, whole.
pub(crate) fn run_id(text: &str) -> Result<RunId, String> {
    text.parse().map_err(|_| "this is not a run's id; `executr runs` and `executr runs --here` show them".to_owned())
}

/// What jobs may use beyond the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// A directory of this machine.
    Directory,
    /// Variables of the executor's environment.
    Inherit,
    /// Programs of this machine, for the variables they print.
    Providers,
    /// Scripts that set up where jobs run.
    Hooks,
    /// Commands that lead to where jobs run.
    Command,
    /// Containers.
    Oci,
    /// Containers with directories and the network of this machine.
    OciHost,
    /// Other hosts, over SSH.
    Ssh,
    /// Other hosts, with keys and configurations of this machine that jobs name.
    SshFiles,
}

/// One thing to allow.
pub(crate) fn allowed(text: &str) -> Result<Allowed, String> {
    match text {
        "directory" => Ok(Allowed::Directory),
        "inherit" => Ok(Allowed::Inherit),
        "providers" => Ok(Allowed::Providers),
        "hooks" => Ok(Allowed::Hooks),
        "command" => Ok(Allowed::Command),
        "oci" => Ok(Allowed::Oci),
        "oci-host" => Ok(Allowed::OciHost),
        "ssh" => Ok(Allowed::Ssh),
        "ssh-files" => Ok(Allowed::SshFiles),
        _ => Err("use directory (jobs may run in a directory of this machine), inherit (jobs may ask for variables of \
                  the executor's environment), providers (`env_from` may run programs of this machine, sops among them), \
                  hooks (workflows may bring the scripts that set up where their jobs run), command (workflows may bring \
                  the commands behind which their jobs run), oci (jobs may run in containers), \
                  oci-host (those may have mounts, this machine's network and another engine), ssh (jobs may run on hosts \
                  that this user's ssh gets to) or ssh-files (those may name keys and configurations of this machine)"
            .to_owned()),
    }
}

/// `REGISTRY=http[s]://HOST[:PORT][/PREFIX]`.
pub(crate) fn mirror(text: &str) -> Result<String, String> {
    let is_mirror = text.split_once('=').is_some_and(|(registry, url)| {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        !registry.is_empty() && host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
    });
    is_mirror.then(|| text.to_owned()).ok_or_else(|| "write it as REGISTRY=https://HOST[:PORT][/PREFIX]".to_owned())
}

/// A path, with `~/` standing for the home directory as in the shell, which doesn't see the value of a variable.
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("give a path".to_owned());
    }
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        _ => Ok(PathBuf::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variables_value_may_hold_anything() {
        assert_eq!(pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("A="), Ok(("A".to_owned(), String::new())));
        assert!(pair("=b").is_err() && pair("A").is_err());
    }

    #[test]
    fn a_mirror_says_of_what_and_where() {
        assert!(mirror("docker.io=https://m.example/hub").is_ok() && mirror("*=http://127.0.0.1:5000").is_ok());
        for text in ["m.example", "docker.io=m.example", "=https://m", "a=https://u:p@h"] {
            assert!(mirror(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_queue_has_weight_1_unless_told_otherwise() {
        let weight = |text| queue_weight(text).map(|queue| (queue.queue.to_string(), queue.weight));
        assert_eq!(weight("builds"), Ok(("builds".to_owned(), 1)));
        assert_eq!(weight("builds=3"), Ok(("builds".to_owned(), 3)));
        for text in ["builds=0", "builds=", "builds=x", "=3", "two words"] {
            assert!(weight(text).is_err(), "{text}");
        }
    }
}
