//! Enrollment of one pod: where it is, where it should be, and the one thing to do next.

pub mod driver;
pub mod effects;
pub mod pod;
pub mod stage;
pub mod unjudged;
