//! The way to endpoints: which one, how it is reached, and the connections that are kept to it.
//!
//! Invariant: an endpoint that takes tunnels is reached through one whose peer proved the endpoint's identity, and never
//! in any other way.

mod connect;
mod destination;
mod dial;
mod failure;
mod io;
mod kept;
mod lease;
mod pool;
mod room;

pub use connect::{Way, open};
pub use destination::{Asker, Chosen, Members, Target, Upstream};
pub use failure::ConnectFailure;
pub use io::Stream;
pub use lease::{Lease, LeaseFailure, Unanswered};
pub use pool::{Connections, Key, Spoken};
pub use room::{Counted, Room};
