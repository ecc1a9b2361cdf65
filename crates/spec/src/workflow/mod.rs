//! What a workflow IS: the file, and the plan that is made of it.
//!
//! A file goes this way:
//! - [`document`]: from text to values with their places;
//! - [`grammar`]: whether they have the shape of a workflow; the same as JSON Schema;
//! - [`read`]: to a [`Workflow`], inheritance applied;
//! - [`check`]: what can be found wrong before anything runs; [`matrix`]: cells;
//! - [`compile`]: to the [`plan`] of a run: what coordinators and workers act on; [`picture`]: how people look at one;
//! - [`placeholder`]: what an executor's `argv` leaves to whoever starts it.
//!
//! [`selection`] says which files go into a job directory, and which come back.
//! [`variables`] says in which order those of a job come together.
//! All problems of a file are told together, each with its place: [`problem`]. Nothing here reads files or starts
//! anything.

mod check;
mod compile;
mod document;
mod file;
mod grammar;
mod matrix;
pub mod picture;
mod placeholder;
mod plan;
mod problem;
mod provider;
mod read;
mod selection;
mod variables;

pub use compile::PlanOptions;
pub use document::MAX_FILE_BYTES;
pub use file::{RepositoryCopy, Workflow};
pub use grammar::schema;
pub use matrix::MAX_CELLS;
pub use picture::dry_run;
pub use placeholder::{Placeholder, filled};
pub use plan::{
    ArtifactInput, ArtifactOutput, ExecutorChoice, FileContent, FileMode, MAX_RUN_JOBS, MAX_RUN_NEEDS, PlannedJob,
    RunPlan, SandboxFile, WorkflowJob,
};
pub use problem::{Position, Problem, Problems};
pub use provider::{Provider, SopsFormat};
pub use read::wrong_characters;
pub use selection::{ArchiveKind, FileSelection, ModifiedFiles};
pub use variables::VariableLayer;

impl Workflow {
    /// Reads and checks a workflow file, in YAML or JSON.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let root = match document::read(text, &mut problems) {
            Ok(root) => root,
            Err(problem) => {
                problems.push(problem);
                return Err(Problems::of(problems));
            }
        };
        grammar::judge(&root, &grammar::WORKFLOW, &mut problems);
        let mut workflow = read::read(&root, &mut problems);
        check::check(&mut workflow, &mut problems);
        Problems::check(problems)?;
        Ok(workflow)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of its jobs, as in the file, each with how many jobs of a run it means.
    pub fn jobs(&self) -> impl Iterator<Item = (&str, usize)> {
        self.jobs.iter().map(|job| (job.name.as_str(), job.cells.len()))
    }
}
