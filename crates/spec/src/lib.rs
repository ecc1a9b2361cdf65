//! What jobs and steps ARE: types, parsing, validation.
//!
//! Everything here is pure: no file, socket, clock, environment or randomness is touched. Where a time or an id is
//! needed it arrives as an argument. Every other crate may depend on this one; it depends on none of them.

mod backoff;
mod condition;
mod digest;
pub mod expression;
pub mod glob;
mod ids;
mod job;
mod names;
mod nearest;
mod priority;
mod quantity;
mod requirements;
mod resources;
mod retry;
mod step;
mod step_image;
mod time;
pub mod workflow;
mod written;

pub use backoff::{Backoff, BackoffKind};
pub use condition::Condition;
pub use digest::{Digest, DigestError, Hasher};
pub use glob::Glob;
pub use ids::{JobId, LeaseId, RunId, TokenId, WorkerId};
pub use job::{EnvironmentBase, JobSpec, MAX_LABELS, MAX_SPEC_BYTES, MAX_STEPS, SpecError, SpecJson};
pub use names::{JobType, NameError, QueueName, Tenant};
pub use priority::Priority;
pub use quantity::{Bytes, Millicores, QuantityError};
pub use requirements::{Capability, ClassError, ExecutorKind, Offers, RequirementClass, Requirements};
pub use resources::Resources;
pub use retry::Retry;
pub use step::{BinaryStep, Step, StepCommand};
pub use step_image::StepImage;
pub use time::{Span, SpanError, Timestamp};
