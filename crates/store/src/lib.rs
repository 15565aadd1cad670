//! What a proxy knows, and where a connection goes.
//!
//! Readers take an immutable [`Snapshot`] and no lock; one writer at a time applies updates and publishes the
//! next. Invariant: nothing is decided before it is known. A store that has not heard of addresses routes
//! nothing, one that has not heard of policies admits nothing.

mod apply;
mod balance;
mod discovery;
mod policies;
mod resolve;
mod snapshot;
mod store;

pub use discovery::Discovery;
pub use resolve::{ALTERNATIVES_MAX, OutboundRequest, Refusal, Route, alternatives, resolve};
pub use snapshot::Snapshot;
pub use store::{AddressUpdate, PolicyUpdate, Store};
