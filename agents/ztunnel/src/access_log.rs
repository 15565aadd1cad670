//! One line for each connection, in Istio's fields and order, as text or JSON.
//!
//! Invariant: a line is written whole or not at all, and a log that cannot keep up loses lines, never connections.

mod line;
mod writer;

pub use line::{Direction, End, Record};
pub use writer::AccessLog;
