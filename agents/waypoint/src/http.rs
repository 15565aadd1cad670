//! HTTP inside a tunnel: served, judged, routed, sent on.
//!
//! Invariant: a request goes nowhere before it was judged by the present policies of its service; what is not
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
