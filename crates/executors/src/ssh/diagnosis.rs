//! What the client's last words mean: it ends with 255 whatever happens, so its text is all there is.
//!
//! It is read in the C locale, and as OpenSSH has worded it since version 7; text that isn't known falls to the phase that
//! is likeliest, and is told as it stands.

use super::error::{Phase, SshError};
use super::target::Target;

/// How much of what the client said is told.
const MOST_LINES: usize = 6;

/// Banners of the host's own, and remarks that are no reason for anything.
const REMARKS: [&str; 5] = [
    "Warning: Permanently added",
    "Pseudo-terminal will not be allocated",
    "Shared connection to",
    "mux_client_",
    "ControlSocket ",
];

/// That another key is there than the one that is known.
const CHANGED: &str = "REMOTE HOST IDENTIFICATION HAS CHANGED";

/// Whether the host showed another key than the one that is known, however the client took it.
pub(super) fn has_changed_key(said: &str) -> bool {
    said.contains(CHANGED)
}

/// What the client's end means that said `said`, before any word came from the host's agent.
pub(super) fn of_client(target: &Target, said: &str) -> SshError {
    let has = |text: &str| said.contains(text);
    let line = |text: &str| said.lines().map(str::trim).find(|line| line.contains(text)).map(str::to_owned);
    let tell = |phase, problem: Option<String>, remedy: String| {
        SshError::new(target, phase, problem.unwrap_or_else(|| last_words(said)), remedy)
    };
    let command = target.command();
    if has_changed_key(said) {
        return changed_key(target, said);
    }
    if has("Host key verification failed") || has("host key is known for") {
        return tell(
            Phase::HostKey,
            Some("its host key isn't known on this machine".to_owned()),
            format!(
                "compare the fingerprint that `{command}` shows with the host's own, and accept it there, or add \
                 the key to ~/.ssh/known_hosts"
            ),
        );
    }
    if let Some(problem) = line("Could not resolve hostname") {
        return tell(Phase::Resolve, Some(problem), format!("check the name, and whether `{command}` finds it"));
    }
    if let Some(problem) = line("hostname contains invalid characters") {
        return tell(Phase::Resolve, Some(problem), "write a host's name or address, without a user".to_owned());
    }
    if let Some(problem) = line("Permission denied (") {
        let key =
            ["bad permissions", "not accessible", "invalid format", "No such identity"].into_iter().find_map(line);
        let key = key.map_or_else(String::new, |key| format!(" ({key})"));
        return tell(
            Phase::Authenticate,
            Some(format!("{problem}{key}")),
            format!(
                "nobody is there to type anything, so `{command} true` has to work without questions: add the public \
                 key to the host's ~/.ssh/authorized_keys, and load the private one with ssh-add or name it by \
                 `identity_file`"
            ),
        );
    }
    if has("Too many authentication failures") {
        return tell(
            Phase::Authenticate,
            line("Too many authentication failures"),
            "the host gave up before the right key was tried: set `IdentitiesOnly yes` and the key's `IdentityFile` \
             for it in ~/.ssh/config"
                .to_owned(),
        );
    }
    if has("Bad configuration option") || has("terminating, ") || has("Can't open user config file") {
        return tell(Phase::Client, None, "correct the configuration of ssh".to_owned());
    }
    if has("Bad port") || has("ControlPath too long") || has("unix_listener") || has("command-line: ") {
        return tell(Phase::Client, None, format!("try `{command} true`"));
    }
    let problem = ["Connection refused", "timed out", "No route to host", "Network is unreachable"];
    if let Some(problem) = problem.into_iter().find_map(line) {
        let remedy = if problem.contains("refused") {
            format!("is sshd running there, and on that port? try `{command} true`")
        } else {
            format!("is the host up, and does a firewall let this machine through? try `{command} true`")
        };
        return tell(Phase::Connect, Some(problem), remedy);
    }
    if has("No SSH version received") || has("invalid format") {
        let problem = "what listens there doesn't speak SSH".to_owned();
        return tell(Phase::Connect, Some(problem), "check the port".to_owned());
    }
    if has("no matching ") {
        return tell(Phase::Connect, line("no matching "), "update the older of the two OpenSSH programs".to_owned());
    }
    let problem =
        ["closed by", "reset by", "kex_exchange_identification", "Connection closed"].into_iter().find_map(line);
    tell(
        Phase::Connect,
        problem,
        format!("the host's own log (of sshd) says why; try `{command} true`, with -v to see more"),
    )
}

/// That the host showed another key than the one that is known.
pub(super) fn changed_key(target: &Target, said: &str) -> SshError {
    let after = |start: &str| said.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let seen =
        said.lines().map(str::trim).find(|line| line.starts_with("SHA256:")).map(|seen| seen.trim_end_matches('.'));
    let remove = said.lines().map(str::trim).find(|line| line.starts_with("ssh-keygen -f"));
    let known = after("Offending").map(|known| known.rsplit_once(" in ").map_or(known, |(_, place)| place));
    let problem = format!(
        "it shows another key than the one that is known{}{}: either it was set up anew, or somebody is in between",
        seen.map(|seen| format!(" ({seen}")).unwrap_or_default(),
        match (seen, known) {
            (Some(_), Some(known)) => format!("; the known one is in {known})"),
            (Some(_), None) => ")".to_owned(),
            (None, Some(known)) => format!(" (the known one is in {known})"),
            (None, None) => String::new(),
        },
    );
    let remedy = format!(
        "ask whoever runs the host; if the new key is right, `{}` and connect once by hand",
        remove.unwrap_or("ssh-keygen -R HOST")
    );
    SshError::new(target, Phase::HostKey, problem, remedy)
}

/// The last lines that say something.
pub(super) fn last_words(said: &str) -> String {
    let lines: Vec<_> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !REMARKS.iter().any(|remark| line.starts_with(remark)))
        .collect();
    let last = lines[lines.len().saturating_sub(MOST_LINES)..].join("; ");
    if last.is_empty() { "ssh ended without a word".to_owned() } else { last }
}
