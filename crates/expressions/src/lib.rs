//! What `${{ … }}` and conditions come to.
//!
//! The language itself, its words and its grammar, is in [`executr_spec::expression`]; here it is evaluated:
//! - [`context`]: what names stand for, as far as it is known; [`needs`]: what a job's needs are to it;
//! - [`evaluate`] and [`functions`]: from an expression to a value;
//! - [`mod@interpolate`]: texts with expressions in them;
//! - [`decide`]: whether a job or a step runs.
//!
//! Two places ask: the coordinator, who knows less, and the worker. Both may ask before everything is known, and what is
//! decided then is decided the same way later: evaluation goes from left to right and stops at the first thing that
//! isn't known.
//!
//! Everything is pure. `docs/expressions.md` is the page for users.

mod context;
mod decide;
mod error;
mod evaluate;
mod functions;
mod interpolate;
mod needs;

pub use context::{Context, Status};
pub use decide::{Verdict, decide, decide_early};
pub use error::EvaluationError;
pub use evaluate::{Evaluated, evaluate, evaluate_early, truth};
pub use executr_spec::expression::{Expression, ExpressionError, Function, Name, Template};
pub use interpolate::interpolate;
pub use needs::{Ended, needs};
