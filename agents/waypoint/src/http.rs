//! HTTP inside a tunnel: served, authorized, routed, forwarded.
//!
//! Invariant: a request is forwarded only after the current policies of its service allowed it; a request that is not
//! understood is answered here.

mod answer;
mod arrival;
mod dispatch;
mod exchange;
mod extended_connect;
mod external;
mod headers;
mod hop_by_hop;
mod judged;
mod mirror;
mod plan;
mod response_body;
mod server;
mod session;
mod tries;
mod upgrade;
mod watched;

pub use answer::Refusal;
pub use exchange::Exchange;
pub use server::serve;
pub use session::Session;
