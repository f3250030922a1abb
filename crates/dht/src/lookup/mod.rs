//! Finding things: one lookup is one small state machine.

mod judge;
mod step;

pub use judge::{AcceptAll, Invalid, Judge, Judged};
pub use step::{Cause, Step, StepKind};
