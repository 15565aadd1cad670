//! What every program needs to run well.
//!
//! A thing lives here only if several programs use it; nothing here knows what a workload is.

pub mod admin;
pub mod backoff;
pub mod env;
pub mod lines;
pub mod readiness;
pub mod series;
pub mod signal;
pub mod sockets;
pub mod telemetry;

pub use backoff::Backoff;
pub use env::{Env, EnvError, Environment};
pub use readiness::{Blocker, Readiness};
