//! What names stand for, as far as it is known.

use std::collections::BTreeMap;

use executr_spec::{JobSpec, RunId};
use serde_json::{Map, Value, json};

/// What the functions `success()`, `failure()` and `cancelled()` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Nothing before failed or was cancelled, and nothing was asked to stop.
    pub success: bool,
    /// Something before failed.
    pub failure: bool,
    /// The run (on a step: the job) was asked to stop.
    pub cancelled: bool,
}

impl Status {
    /// Nothing has gone wrong so far.
    pub const GOOD: Self = Self { success: true, failure: false, cancelled: false };
}

/// What names stand for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    roots: BTreeMap<String, Root>,
    status: Option<Status>,
}

/// What is known of a context.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Root {
    /// All. What isn't in it doesn't exist.
    Whole(Value),
    /// Something. What isn't in it may come later.
    Part(Value),
    /// Nothing yet.
    Later,
}

impl Context {
    /// Nothing is known, and nothing else will be.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the coordinator knows of a job before it runs: `matrix`, `run`, `job`, and of `env` what the file and the command
    /// line say literally and nothing can hide. `needs` and the status have to be added.
    #[must_use]
    pub fn of_job(spec: &JobSpec, run: &RunId) -> Self {
        let Some(workflow) = &spec.workflow else { return Self::new() };
        let known = spec.literal_variables().into_iter();
        let env = known.map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>();
        Self::new()
            .with("matrix", workflow.matrix.clone().into_iter().collect::<Map<_, _>>().into())
            .with("run", json!({ "id": run.to_string(), "name": workflow.workflow }))
            .with("job", json!({ "name": workflow.name }))
            .with_part("env", env.into())
            .later("steps")
            .later("previous_step")
    }

    /// All of `root` is known.
    #[must_use]
    pub fn with(mut self, root: &str, value: Value) -> Self {
        self.set(root, value);
        self
    }

    /// All of `root` is known, from now on.
    pub fn set(&mut self, root: &str, value: Value) {
        self.roots.insert(root.to_owned(), Root::Whole(value));
    }

    /// Some keys of `root` are known; others may come later.
    #[must_use]
    pub fn with_part(mut self, root: &str, value: Value) -> Self {
        self.roots.insert(root.to_owned(), Root::Part(value));
        self
    }

    /// There will be `root`, and nothing of it is known yet.
    #[must_use]
    pub fn later(mut self, root: &str) -> Self {
        self.roots.insert(root.to_owned(), Root::Later);
        self
    }

    /// How things went so far.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.set_status(status);
        self
    }

    /// How things went, from now on.
    pub fn set_status(&mut self, status: Status) {
        self.status = Some(status);
    }

    /// A part of what is known, to add to it.
    pub fn get_mut(&mut self, root: &str) -> Option<&mut Value> {
        match self.roots.get_mut(root)? {
            Root::Whole(value) | Root::Part(value) => Some(value),
            Root::Later => None,
        }
    }

    pub(crate) fn root(&self, name: &str) -> Option<&Root> {
        self.roots.get(name)
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.status
    }
}
