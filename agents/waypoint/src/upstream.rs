//! Destinations: which of their endpoints a request goes to, how that is reached, and the connections kept to it.
//!
//! Invariant: an endpoint that takes tunnels is reached through one whose peer proved the endpoint's identity, and never
//! in any other way.

mod connect;
mod connection_limit;
mod destination;
mod dial;
mod endpoint;
mod failure;
mod idle_pool;
mod io;
mod key;
mod pool;

pub use connection_limit::{ConnectionLimit, ConnectionPermit};
pub use destination::{Chosen, Members, Selection, Upstream};
pub use endpoint::Endpoint;
pub use failure::{ConnectFailure, LeaseFailure};
pub use idle_pool::{Lease, Unanswered};
pub use io::Stream;
pub use key::HttpVersion;
pub use pool::Connections;
