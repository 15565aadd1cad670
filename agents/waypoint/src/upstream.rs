//! The way to endpoints: which one, how it is reached, and the connections that are kept to it.
//!
//! Invariant: an endpoint that takes tunnels is reached through one whose peer proved the endpoint's identity, and never
//! in any other way.

mod connect;
mod destination;
mod failure;
mod io;
mod pool;

pub use connect::{Way, open};
pub use destination::{Asker, Chosen, Target, Upstream};
pub use failure::ConnectFailure;
pub use io::Stream;
pub use pool::{Connections, Key, Lease, LeaseFailure, Spoken, Unanswered};
