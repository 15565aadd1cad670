//! HTTP inside a tunnel: served, judged, routed, sent on.
//!
//! Invariant: a request goes nowhere before it was judged by the present policies of its service; what is not
//! understood is answered here.

mod answer;
mod arrival;
mod client_body;
mod copies;
mod detect;
mod dispatch;
mod exchange;
mod executor;
mod extended_connect;
mod external;
mod headers;
mod judged;
mod messages;
mod mirror;
mod plan;
mod request_body;
mod response_body;
mod server;
mod session;
mod tries;
mod upgrade;
mod watched;

pub use answer::Refusal;
pub(crate) use answer::rbac_details;
pub use client_body::ClientBody;
pub use detect::{DETECT_TIMEOUT, SILENCE_TIMEOUT, Sniffed, sniff, sniff_http};
pub use exchange::Exchange;
pub use executor::LocalExecutor;
pub use external::Check;
pub use request_body::RequestBody;
pub use server::serve;
pub use session::Session;

#[cfg(test)]
pub(crate) mod testing;
