//! Enrollment of one pod: its current position, its target, and the next effect.

pub(crate) mod driver;
pub(crate) mod effects;
pub(crate) mod pod;
pub(crate) mod stage;
pub(crate) mod unjudged;
