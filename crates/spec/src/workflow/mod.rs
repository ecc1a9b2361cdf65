//! What a workflow IS: the file, and the plan that is made of it.
//!
//! - [`plan`]: jobs with everything resolved that can be resolved before a run: what coordinators and workers act on.
//!
//! Nothing here reads files or starts anything.

mod plan;
mod provider;

pub use plan::{
    ArtifactInput, ArtifactOutput, ExecutorChoice, FileContent, FileMode, MAX_RUN_JOBS, MAX_RUN_NEEDS, PlannedJob,
    RunPlan, SandboxFile, WorkflowJob,
};
pub use provider::{Provider, SopsFormat};
