//! What an executor's `argv` leaves to whoever starts it: `{agent}`, `{job_id}` and a few more, anywhere in its words. A
//! brace behind `$`, or around anything but small letters and `_`, is none, so a shell's variables stay what they are.

/// Something that is known when an argv is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// The path of the agent on the worker's machine.
    Agent,
    /// The directory that holds the job's: the one its steps start in, and beside that what goes with it.
    JobDirectory,
    /// The directory in which fetched programs are kept: steps with `binary` run them there.
    Programs,
    /// The run's id.
    RunId,
    /// The job's id.
    JobId,
    /// The job's name.
    JobName,
    /// Which attempt at the job it is, from 1 on.
    Attempt,
}

impl Placeholder {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Agent, Self::JobDirectory, Self::Programs, Self::RunId, Self::JobId, Self::JobName, Self::Attempt];

    /// What stands between the braces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::JobDirectory => "job_directory",
            Self::Programs => "programs",
            Self::RunId => "run_id",
            Self::JobId => "job_id",
            Self::JobName => "job_name",
            Self::Attempt => "attempt",
        }
    }
}

/// A word with its placeholders replaced. Unknown ones stay as they are.
#[must_use]
pub fn filled(word: &str, value: impl Fn(Placeholder) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, name, after)) = split(rest) {
        out.extend_from_slice(before.as_bytes());
        match Placeholder::ALL.into_iter().find(|known| known.as_str() == name) {
            Some(known) => out.extend(value(known)),
            None => out.extend_from_slice(&rest.as_bytes()[before.len()..rest.len() - after.len()]),
        }
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// The first placeholder of a word that there isn't.
pub(super) fn unknown(word: &str) -> Option<&str> {
    let mut rest = word;
    while let Some((_, name, after)) = split(rest) {
        if !Placeholder::ALL.iter().any(|known| known.as_str() == name) {
            return Some(name);
        }
        rest = after;
    }
    None
}

/// A text in front of its first name in braces, that name, and the text behind.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(open) = text[from..].find('{').map(|at| from + at) {
        from = open + 1;
        let length = text[from..].find('}')?;
        let name = &text[from..from + length];
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_name && !text[..open].ends_with('$') {
            return Some((&text[..open], name, &text[from + length + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_braces_are_placeholders() {
        let fill = |word: &str| {
            String::from_utf8(filled(word, |known| known.as_str().to_uppercase().into_bytes())).expect("text")
        };
        for (word, expected) in [
            ("{agent}", "AGENT"),
            ("a{job_id}b{attempt}", "aJOB_IDbATTEMPT"),
            ("{{agent}}", "{AGENT}"),
            ("${agent} {} { x } {A} {x", "${agent} {} { x } {A} {x"),
            ("é{run_id}é", "éRUN_IDé"),
            ("{no} {agent}", "{no} AGENT"),
        ] {
            assert_eq!(fill(word), expected, "{word}");
        }
        assert_eq!(unknown("{agent} {agnet}"), Some("agnet"));
        assert_eq!(unknown("awk '{print $1}' ${agnet} {agent}"), None);
    }
}
