//! What is to be done, as the words this program is started with.
//!
//! ```text
//! stage [--users one|many] [--hide-unified] [--remove DIRECTORY]
//!       [--owner PID --number N [--memory BYTES] [--cpu THOUSANDTHS] [--pids N]]
//!       [--overlay TARGET --upper DIRECTORY --work DIRECTORY --layer DIRECTORY… | --machine TARGET]
//!       -- PROGRAM [ARGUMENT…]
//! ```

use std::ffi::OsString;
use std::path::PathBuf;

use executr_agent_protocol::v1::Limits;

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) users: Users,
    pub(super) hide_unified: bool,
    /// Removed at the end, with all it holds.
    pub(super) remove: Option<PathBuf>,
    /// In whose name control groups are made; none are without.
    pub(super) owner: Option<u32>,
    /// Tells the owner's containers apart.
    pub(super) number: u32,
    pub(super) limits: Limits,
    pub(super) root: Root,
    pub(super) command: Vec<OsString>,
}

/// Which users there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Users {
    /// The machine's.
    #[default]
    Machine,
    /// This one alone, as root of a namespace.
    One,
    /// This one as root, and those that /etc/subuid gives it.
    Many,
}

/// What is mounted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Root {
    /// Nothing.
    #[default]
    None,
    /// Layers of an image, the uppermost first, below a directory that takes what is written.
    Layers { target: PathBuf, layers: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// All of this machine, read-only.
    Machine { target: PathBuf },
}

impl Plan {
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut plan = Self::default();
        let (mut overlay, mut layers, mut upper, mut work) = (None, Vec::new(), None, None);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let name = word.to_str().ok_or("an option is no text")?;
            match name {
                "--" => {
                    plan.command = words.cloned().collect();
                    break;
                }
                "--hide-unified" => {
                    plan.hide_unified = true;
                    continue;
                }
                _ => {}
            }
            let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number =
                || value.to_str().and_then(|text| text.parse::<u64>().ok()).ok_or(format!("{name} is no number"));
            let small =
                || number().and_then(|number| u32::try_from(number).map_err(|_| format!("{name} is too large")));
            match name {
                "--users" if value == "one" => plan.users = Users::One,
                "--users" if value == "many" => plan.users = Users::Many,
                "--remove" => plan.remove = Some(value.into()),
                "--owner" => plan.owner = Some(small()?),
                "--number" => plan.number = small()?,
                "--memory" => plan.limits.memory_bytes = number()?,
                "--cpu" => plan.limits.cpu_millis = small()?,
                "--pids" => plan.limits.pids = small()?,
                "--overlay" => overlay = Some(PathBuf::from(value)),
                "--upper" => upper = Some(PathBuf::from(value)),
                "--work" => work = Some(PathBuf::from(value)),
                "--layer" => layers.push(PathBuf::from(value)),
                "--machine" => plan.root = Root::Machine { target: value.into() },
                _ => return Err(format!("there is no option {name} with this value")),
            }
        }
        if let Some(target) = overlay {
            let (upper, work) = upper.zip(work).ok_or("an overlay needs two directories to write to")?;
            plan.root = Root::Layers { target, layers, upper, work };
        }
        if plan.command.is_empty() {
            return Err("there is no program to run".to_owned());
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Plan, String> {
        Plan::parse(&text.split_ascii_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn words_say_what_is_to_be_done() {
        let text = "--users many --hide-unified --remove /c --owner 7 --number 3 --memory 10 --cpu 500 --pids 9 \
                    --overlay /c/root --upper /c/upper --work /c/work --layer /b --layer /a -- crun run --pids x";
        let expected = Plan {
            users: Users::Many,
            hide_unified: true,
            remove: Some("/c".into()),
            owner: Some(7),
            number: 3,
            limits: Limits { memory_bytes: 10, cpu_millis: 500, pids: 9 },
            root: Root::Layers {
                target: "/c/root".into(),
                layers: vec!["/b".into(), "/a".into()],
                upper: "/c/upper".into(),
                work: "/c/work".into(),
            },
            command: ["crun", "run", "--pids", "x"].map(OsString::from).into(),
        };
        assert_eq!(parse(text), Ok(expected));
        let machine =
            Plan { root: Root::Machine { target: "/r".into() }, command: vec!["x".into()], ..Plan::default() };
        assert_eq!(parse("--machine /r -- x"), Ok(machine));
    }

    #[test]
    fn what_is_missing_is_said() {
        for (text, problem) in [
            ("", "no program"),
            ("--", "no program"),
            ("--owner -- x", "number"),
            ("--owner 5000000000 -- x", "large"),
            ("--overlay /a --layer /b -- x", "overlay"),
            ("--users all -- x", "--users"),
            ("--remove", "value"),
            ("crun run", "no option crun"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
