//! Bodies of requests on their way from a client to endpoints: read once, counted, copied, and sent again if need be.
//!
//! Invariant: a client's body is read in one place ([`BytesSeen`]), however many endpoints it goes to.

mod client;
mod copies;
mod messages;
mod request;

pub use client::{ClientBody, Peeked};
pub use copies::{Cut, Ended};
pub use messages::Messages;
pub use request::{BytesSeen, Held, RequestBody, is_unsized};
