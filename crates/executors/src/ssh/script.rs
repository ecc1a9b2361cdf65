//! What a host's shell is asked to do, in words every shell takes the same way.
//!
//! The user's login shell may be any: it is handed one line, `exec /bin/sh -c '…'`, within whose quotes neither `'` nor `!` nor
//! a line's end stands, which csh and fish read in their own ways. What runs then is POSIX, and uses `cat`, `chmod`, `id`,
//! `mkdir`, `mv`, `rm`, `uname` and nothing else.
//!
//! ```text
//! DIRECTORY/agent/DIGEST   the agent, of mode 0700
//! DIRECTORY/at/ID/         what one worker has there: its agent's socket, its jobs
//! ```

/// Where things are kept on a host that says nothing else.
const USUAL: [&str; 2] = ["${HOME:-/tmp/executr-$u}/.cache/executr", "/tmp/executr-$u"];

/// A directory of a host that a script may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directories(String);

impl Directories {
    /// Those to try for what a workflow says; `None` when that is no path which every shell takes as it is.
    pub(super) fn of(said: Option<&str>) -> Option<Self> {
        let Some(said) = said else { return Some(Self::quoted(USUAL.map(str::to_owned))) };
        let path = match said.strip_prefix("~/") {
            Some(below) => format!("${{HOME:-/tmp/executr-$u}}/{below}"),
            None if said.starts_with('/') => said.to_owned(),
            None => return None,
        };
        let plain = |c: char| c.is_alphanumeric() || " /._-+@%,:=~".contains(c);
        // Where it is somebody else's, there may be one of ours in it.
        said.chars().all(plain).then(|| Self::quoted([path.clone(), format!("{path}/executr-$u")]))
    }

    fn quoted(paths: [String; 2]) -> Self {
        Self(paths.map(|path| format!("\"{path}\"")).join(" "))
    }
}

/// Becomes the relay to the agent of `id`, which is started if it doesn't run; says `missing SYSTEM MACHINE` where there
/// is none of this digest.
pub(super) fn reach(directories: &Directories, digest: &str, id: &str, patience: u64) -> String {
    as_agent(directories, digest, &format!(r#"reach "$d" {id} {patience}"#))
}

/// Removes what dead owners left, `id` among them, and says `swept COUNT PROBLEM`; `missing` where there is no agent of this digest, which
/// does that.
pub(super) fn sweep(directories: &Directories, digest: &str, id: &str) -> String {
    as_agent(directories, digest, &format!(r#"sweep "$d" {id}"#))
}

fn as_agent(Directories(directories): &Directories, digest: &str, arguments: &str) -> String {
    line(&format!(
        r##"
        u=$(id -u); m=executr;
        for d in {directories}; do
            f="$d/agent/{digest}";
            if test -x "$f" && test -O "$d"; then exec "$f" {arguments}; fi;
        done;
        printf "\000%s missing %s\000" "$m" "$(uname -s) $(uname -m)"
        "##
    ))
}

/// Writes what comes on standard input to where agents of this digest are kept, once it is known to be one: `placed
/// DIRECTORY`, `unplaced DIRECTORY` where it can't be written, `nowhere` where there is no directory that does.
pub(super) fn place(Directories(directories): &Directories, digest: &str) -> String {
    line(&format!(
        r##"
        umask 077; u=$(id -u); m=executr;
        for d in {directories}; do
            if mkdir -p "$d/agent" && test -O "$d"; then
                t="$d/agent/try-$$";
                if printf "#\041/bin/sh\n" > "$t" && chmod 700 "$t" && "$t"; then
                    rm -f "$t"; p="$d/agent/part-$$";
                    if cat > "$p" && chmod 700 "$p" && "$p" verify {digest} && mv -f "$p" "$d/agent/{digest}"; then
                        printf "\000%s placed %s\000" "$m" "$d";
                    else
                        rm -f "$p"; printf "\000%s unplaced %s\000" "$m" "$d";
                    fi;
                    exit;
                fi;
                rm -f "$t";
            fi;
        done;
        printf "\000%s nowhere\000" "$m"
        "##
    ))
}

fn line(script: &str) -> String {
    let script: Vec<_> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let script = script.join(" ");
    debug_assert!(!script.contains(['\'', '!', '\n']), "one that every shell takes: {script}");
    format!("exec /bin/sh -c '{script}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_as_it_is_or_refused() {
        let of = |said| Directories::of(said).map(|Directories(text)| text);
        let usual = r#""${HOME:-/tmp/executr-$u}/.cache/executr" "/tmp/executr-$u""#;
        assert_eq!(of(None).as_deref(), Some(usual));
        assert_eq!(of(Some("/srv/a b")).as_deref(), Some(r#""/srv/a b" "/srv/a b/executr-$u""#));
        let home = r#""${HOME:-/tmp/executr-$u}/ci" "${HOME:-/tmp/executr-$u}/ci/executr-$u""#;
        assert_eq!(of(Some("~/ci")).as_deref(), Some(home));
        for wrong in ["ci", "", "~ann/x", "/a'b", "/a$(reboot)", "/a`b`", "/a\"b", "/a\\b", "/a!b", "/a\nb", "/a;b"] {
            assert_eq!(of(Some(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn a_line_is_one_word_of_every_shell() {
        let directories = Directories::of(None).expect("the usual ones");
        for line in [reach(&directories, "d1", "i", 60), place(&directories, "d1"), sweep(&directories, "d1", "i")] {
            let script = line.strip_prefix("exec /bin/sh -c '").and_then(|line| line.strip_suffix('\''));
            assert!(!script.expect("in quotes").contains(['\'', '!', '\n']), "{line}");
        }
    }
}
