//! A workflow as its file says it, inheritance applied: what plans are made of.

use std::collections::BTreeMap;

use super::matrix::{Cell, Matrix};
use super::plan::{ExecutorChoice, FileMode};
use super::problem::Position;
use super::selection::ArchiveKind;
use crate::condition::Condition;
use crate::glob::Glob;
use crate::job::JobSpec;
use crate::time::Span;

/// A workflow in which nothing is wrong that can be known before it runs. [`Workflow::parse`] reads one.
#[derive(Clone, Debug)]
pub struct Workflow {
    pub(super) name: String,
    pub(super) fail_fast: bool,
    pub(super) timeout: Option<Span>,
    /// In the order of the file.
    pub(super) jobs: Vec<Job>,
    /// The places of all jobs in `jobs`; each after those it needs.
    pub(super) order: Vec<usize>,
    /// Texts of the workflow itself that may have expressions in them.
    pub(super) texts: Vec<Text>,
}

/// A job of a file; all its cells, when it has a matrix.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) name: String,
    /// Where its name stands.
    pub(super) at: Position,
    pub(super) needs: Vec<Located<String>>,
    /// The places of the jobs it needs, sorted; filled in once they are known to exist.
    pub(super) need_places: Vec<usize>,
    pub(super) condition: Condition,
    /// Where its condition stands.
    pub(super) condition_at: Position,
    pub(super) continue_on_error: bool,
    /// What all cells have in common. Its `workflow` is there, without what only cells have.
    pub(super) template: JobSpec,
    /// The place of each of the template's steps.
    pub(super) steps: Vec<StepPlace>,
    pub(super) copy: RepositoryCopy,
    pub(super) inputs: Vec<Located<WrittenInput>>,
    pub(super) outputs: Vec<Located<WrittenOutput>>,
    /// Files whose content stands in a file beside the user: from the path in the job directory.
    pub(super) local_files: BTreeMap<String, LocalFile>,
    pub(super) modified: Option<Located<WrittenModified>>,
    pub(super) matrix: Option<Located<Matrix>>,
    /// One of them when it has no matrix.
    pub(super) cells: Vec<Cell>,
    /// Texts that may have expressions in them.
    pub(super) texts: Vec<Text>,
}

/// Where a step stands, and its condition.
#[derive(Clone, Debug)]
pub(super) struct StepPlace {
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) condition_at: Position,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) at: Position,
    /// Its key from the top of the file.
    pub(super) key: String,
    pub(super) value: T,
}

/// An input as it is written; both may have `${{ matrix… }}` in them.
#[derive(Clone, Debug)]
pub(super) struct WrittenInput {
    pub(super) name: String,
    pub(super) path: String,
}

/// An output as it is written; likewise.
#[derive(Clone, Debug)]
pub(super) struct WrittenOutput {
    pub(super) name: String,
    pub(super) path: String,
}

/// What comes back, as it is written; `to` and `name` may have `${{ matrix… }}` in them.
#[derive(Clone, Debug)]
pub(super) struct WrittenModified {
    pub(super) to: Option<String>,
    pub(super) name: Option<String>,
    pub(super) archive: ArchiveKind,
    pub(super) include: Vec<Glob>,
    pub(super) exclude: Vec<Glob>,
}

/// A file whose content stands in a file beside the user.
#[derive(Clone, Debug)]
pub(super) struct LocalFile {
    pub(super) from: String,
    pub(super) mode: FileMode,
}

/// What of the repository a job starts from. Ordered by how much that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepositoryCopy {
    /// Nothing: an empty directory.
    Nothing,
    /// Its files.
    Files,
    /// Its files and `.git`.
    FilesAndGit,
}

/// An executor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Executor {
    pub(super) choice: ExecutorChoice,
    pub(super) copy_repo: bool,
    pub(super) copy_git: bool,
}

/// A text that may have expressions in it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) text: String,
}

/// Where a text stands, which decides what its expressions can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The workflow's `env`.
    Workflow,
    /// A job's `if`.
    JobCondition,
    /// A job's `env` and `files`.
    Job,
    /// A step's `if`; which one.
    StepCondition(usize),
    /// What a step is given; which one.
    Step(usize),
    /// Decided before the run: only `matrix` is known.
    Cell,
}
