//! Enrollment of one pod: its current position, its target, and the next effect.

pub mod driver;
pub mod effects;
pub mod pod;
pub mod stage;
pub mod unjudged;
