//! What a job asks of a worker, and what a worker offers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::ids::WorkerId;

/// A kind of executor. More kinds arrive with more executors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// A directory on the worker's machine.
    #[default]
    Local,
    /// The operator's or the file's own scripts.
    Hooks,
    /// A container of an engine on the worker's machine.
    Oci,
    /// Behind a command of the file's own that starts an agent.
    Command,
    /// Another host, over SSH.
    Ssh,
}

impl ExecutorKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Local, Self::Hooks, Self::Oci, Self::Command, Self::Ssh];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Hooks => "hooks",
            Self::Oci => "oci",
            Self::Command => "command",
            Self::Ssh => "ssh",
        }
    }
}

/// Something that not every worker can or will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Keep a job to a share of processor time.
    LimitCpu,
    /// Keep a job to an amount of memory.
    LimitMemory,
    /// Keep a job to a number of processes.
    LimitPids,
    /// Run a job in a directory of the worker's machine instead of a sandbox. Needs `--allow directory`.
    Directory,
    /// Hand variables of the worker's own environment to a job. Needs `--allow inherit`.
    Inherit,
    /// Run programs for the variables they print, `sops` among them. Needs `--allow providers`.
    Providers,
    /// Run a step of a job in a container, when the job itself is in none. Needs `--allow oci`.
    Containers,
}

impl Capability {
    /// All capabilities.
    pub const ALL: [Self; 7] = [
        Self::LimitCpu,
        Self::LimitMemory,
        Self::LimitPids,
        Self::Directory,
        Self::Inherit,
        Self::Providers,
        Self::Containers,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LimitCpu => "limit_cpu",
            Self::LimitMemory => "limit_memory",
            Self::LimitPids => "limit_pids",
            Self::Directory => "directory",
            Self::Inherit => "inherit",
            Self::Providers => "providers",
            Self::Containers => "containers",
        }
    }
}

/// What a worker offers to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Offers {
    /// The kinds of executor it runs.
    #[serde(default)]
    pub executors: BTreeSet<ExecutorKind>,
    /// What its operator says of it: `--label gpu=a100`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it can and may do.
    #[serde(default)]
    pub capabilities: BTreeSet<Capability>,
    /// Which worker this is, for jobs that are held to one. Filled in by the coordinator, never sent.
    #[serde(skip)]
    pub worker: Option<WorkerId>,
}

/// What a job asks of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirements {
    /// The kind of executor that runs it.
    pub executor: ExecutorKind,
    /// Labels the worker must bear.
    pub labels: BTreeMap<String, String>,
    /// What the worker must be able and willing to do.
    pub capabilities: BTreeSet<Capability>,
    /// Which worker it must be.
    pub worker: Option<WorkerId>,
}

impl Requirements {
    /// What of these requirements `offers` lacks, in words, empty when it lacks nothing.
    #[must_use]
    pub fn lacking(&self, offers: &Offers) -> Vec<String> {
        let mut lacking = Vec::new();
        if !offers.executors.contains(&self.executor) {
            lacking.push(format!("executor {}", self.executor.as_str()));
        }
        for (key, value) in &self.labels {
            if offers.labels.get(key) != Some(value) {
                lacking.push(format!("label {key}={value}"));
            }
        }
        for capability in &self.capabilities {
            if !offers.capabilities.contains(capability) {
                lacking.push(capability.as_str().to_owned());
            }
        }
        if let Some(worker) = &self.worker
            && offers.worker.as_ref() != Some(worker)
        {
            lacking.push(format!("worker {worker}, which holds its workspace"));
        }
        lacking
    }

    /// Whether a worker with `offers` can run such a job.
    #[must_use]
    pub fn met_by(&self, offers: &Offers) -> bool {
        offers.executors.contains(&self.executor)
            && self.worker.as_ref().is_none_or(|worker| offers.worker.as_ref() == Some(worker))
            && self.capabilities.is_subset(&offers.capabilities)
            && self.labels.iter().all(|(key, value)| offers.labels.get(key) == Some(value))
    }

    /// The class of all jobs that ask for the same.
    #[must_use]
    pub fn class(&self) -> RequirementClass {
        let mut text = self.executor.as_str().to_owned();
        for capability in &self.capabilities {
            text.push_str(" +");
            text.push_str(capability.as_str());
        }
        for (key, value) in &self.labels {
            text.push(' ');
            escape(key, &mut text);
            text.push('=');
            escape(value, &mut text);
        }
        if let Some(worker) = &self.worker {
            text.push_str(" @");
            escape(&worker.0, &mut text);
        }
        RequirementClass(text)
    }
}

/// The canonical text of [`Requirements`]; equal texts are equal requirements. `local +limit_memory gpu=a100`.
///
/// There is none that this version does not understand: such a text is an error wherever it is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RequirementClass(String);

/// A text that no requirements have in this version. A database that a newer program uses as well may hold one: no
/// worker of this version can run such jobs.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a requirement class")]
pub struct ClassError(String);

impl RequirementClass {
    /// The class as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The class of the same jobs held to one worker, or (`None`) to none any more.
    #[must_use]
    pub fn on_worker(&self, worker: Option<&WorkerId>) -> Self {
        let mut requirements = self.requirements();
        requirements.worker = worker.cloned();
        requirements.class()
    }

    /// The requirements that all jobs of this class have.
    #[must_use]
    pub fn requirements(&self) -> Requirements {
        parse(&self.0).expect("every class was made of requirements")
    }
}

impl fmt::Display for RequirementClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RequirementClass {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let class = parse(text).map(|requirements| requirements.class());
        // What means the same and is written otherwise is another class to whoever wrote it.
        class.filter(|class| class.0 == text).ok_or_else(|| ClassError(text.to_owned()))
    }
}

impl TryFrom<String> for RequirementClass {
    type Error = ClassError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RequirementClass> for String {
    fn from(class: RequirementClass) -> Self {
        class.0
    }
}

fn parse(text: &str) -> Option<Requirements> {
    let mut words = text.split(' ');
    let first = words.next()?;
    let executor = ExecutorKind::ALL.into_iter().find(|kind| kind.as_str() == first)?;
    let mut requirements = Requirements { executor, ..Requirements::default() };
    for word in words {
        if let Some(name) = word.strip_prefix('+') {
            requirements.capabilities.insert(Capability::ALL.into_iter().find(|c| c.as_str() == name)?);
        } else if let Some(worker) = word.strip_prefix('@') {
            requirements.worker = Some(WorkerId(unescape(worker)?));
        } else {
            let (key, value) = word.split_once('=')?;
            requirements.labels.insert(unescape(key)?, unescape(value)?);
        }
    }
    Some(requirements)
}

/// Writes `text` so that it holds no space, `=`, `+`, `@` or `%`.
fn escape(text: &str, into: &mut String) {
    for c in text.chars() {
        match c {
            ' ' => into.push_str("%20"),
            '=' => into.push_str("%3D"),
            '+' => into.push_str("%2B"),
            '@' => into.push_str("%40"),
            '%' => into.push_str("%25"),
            c => into.push(c),
        }
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        out.push(match after.get(..2)? {
            "20" => ' ',
            "3D" => '=',
            "2B" => '+',
            "40" => '@',
            "25" => '%',
            _ => return None,
        });
        rest = &after[2..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awkward() -> Requirements {
        Requirements {
            executor: ExecutorKind::Local,
            labels: [("a b", "c=d"), ("+x", "100%"), ("e", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            capabilities: [Capability::LimitMemory, Capability::Directory].into(),
            worker: None,
        }
    }

    #[test]
    fn a_class_reads_back_as_the_same_requirements() {
        for requirements in [awkward(), Requirements::default()] {
            assert_eq!(requirements.class().requirements(), requirements);
            assert_eq!(requirements.class().as_str().parse(), Ok(requirements.class()));
        }
        assert!("moon".parse::<RequirementClass>().is_err());
        assert!("local +fly".parse::<RequirementClass>().is_err());
        assert!("local b=2 a=1".parse::<RequirementClass>().is_err(), "the same is written in one way only");
        assert!(serde_json::from_str::<RequirementClass>("\"moon\"").is_err());
        let class = awkward().class();
        assert_eq!(serde_json::to_value(&class).expect("JSON"), class.as_str());
    }

    #[test]
    fn a_class_can_be_held_to_one_worker() {
        let (here, there) = (WorkerId("w 1-@x".to_owned()), WorkerId("w2".to_owned()));
        let held = awkward().class().on_worker(Some(&here));
        assert_eq!(held.requirements(), Requirements { worker: Some(here.clone()), ..awkward() });
        assert_eq!(held.on_worker(None), awkward().class());
        let class = Requirements::default().class().on_worker(Some(&here));
        let mut offers = Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() };
        for (worker, fits) in [(None, false), (Some(there), false), (Some(here), true)] {
            offers.worker = worker;
            assert_eq!(class.requirements().met_by(&offers), fits);
        }
    }

    #[test]
    fn what_is_lacking_is_named() {
        let offers = Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() };
        assert!(Requirements::default().met_by(&offers));
        assert!(!awkward().met_by(&offers));
        assert_eq!(
            awkward().lacking(&offers),
            ["label +x=100%", "label a b=c=d", "label e=", "limit_memory", "directory"]
        );
    }
}
