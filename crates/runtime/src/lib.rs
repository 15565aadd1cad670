//! Infrastructure shared by all programs.
//!
//! Only code that several programs use belongs here; nothing here knows about workloads.

pub mod accept;
pub mod admin;
mod backoff;
pub mod env;
pub mod lines;
mod readiness;
pub mod series;
pub mod signal;
pub mod sockets;
pub mod telemetry;

pub use backoff::Backoff;
pub use env::{Env, EnvError, Environment};
pub use readiness::{Blocker, Readiness};
