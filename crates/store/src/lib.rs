//! The proxy's view of the mesh, and routing of outbound connections.
//!
//! Readers take an immutable [`Snapshot`] and no lock; one writer at a time applies updates and
//! publishes the next. Invariant: nothing is decided before it is known. A store without addresses
//! routes nothing, one without policies admits nothing, one without bound services serves none.

mod apply;
mod balance;
mod bound;
mod discovery;
mod lookup;
mod policies;
mod ranges;
mod resolve;
mod snapshot;
mod store;

pub use balance::Endpoints;
pub use bound::BoundEntry;
pub use discovery::{BoundDiscovery, Discovery};
pub use lookup::{ANSWER_TIME_MAX, Lookup, LookupResult, queries};
pub use resolve::{
    ALTERNATIVES_MAX, Hop, OutboundRequest, Refusal, Route, alternatives, guards, port_to, resolve, route_to,
    route_to_pod,
};
pub use snapshot::Snapshot;
pub use store::{AddressUpdate, PolicyUpdate, Store};
