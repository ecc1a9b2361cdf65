//! What the executors of this program have and lack on a machine, and the remedy.
//!
//! - [`facts`]: what was found out, as plain values;
//! - `machine`, `local`, `hooks`, `containers`, `direct`: what the facts mean for each, purely;
//! - [`probe`]: finds the facts out, with a deadline for everything that may hang.
//!
//! Nothing here prints, and what it makes on the machine to try something goes again.

mod containers;
mod direct;
pub mod facts;
mod hooks;
mod local;
mod machine;
pub mod probe;

use serde::Serialize;

use facts::Facts;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is there and works.
    Ok,
    /// It isn't there, and some jobs would want it. Nobody has said that it ought to be there.
    Lacks,
    /// It is what jobs use by default, or was asked for, and doesn't work.
    Broken,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub says: String,
    /// What to do about it, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, says: impl Into<String>) -> Self {
        Self { subject, standing: Standing::Ok, says: says.into(), remedy: None }
    }

    fn lacks(subject: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, standing: Standing::Lacks, says: says.into(), remedy: Some(remedy.into()) }
    }

    fn broken(subject: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { standing: Standing::Broken, ..Self::lacks(subject, says, remedy) }
    }
}

/// What was found about one executor, or about what all of them use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// `machine`, an executor's kind, or `direct`: containers without a daemon.
    pub name: &'static str,
    /// In the order in which they matter.
    pub findings: Vec<Finding>,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The machine first, then each executor of this program.
    pub sections: Vec<Section>,
}

impl Report {
    /// Whether the default executor works, and everything that was asked for.
    #[must_use]
    pub fn works(&self) -> bool {
        let mut findings = self.sections.iter().flat_map(|section| &section.findings);
        findings.all(|finding| finding.standing != Standing::Broken)
    }
}

/// What the facts mean.
#[must_use]
pub fn diagnose(facts: &Facts) -> Report {
    let mut sections = vec![
        Section { name: "machine", findings: machine::findings(&facts.machine) },
        Section { name: "local", findings: local::findings(&facts.machine, &facts.local) },
        Section { name: "hooks", findings: hooks::findings(facts.bash.as_deref()) },
    ];
    if let Some(containers) = &facts.containers {
        sections.push(Section { name: "oci", findings: containers::findings(&facts.machine, containers) });
    }
    if let Some(direct) = &facts.direct {
        sections.push(Section { name: "direct", findings: direct::findings(&facts.machine, direct) });
    }
    Report { sections }
}
