//! waypoint: the L7 proxy of a namespace.
//!
//! A tunnel connection comes in ([`inbound`]), each of its streams names a service that is bound here ([`target`]), and
//! its requests or bytes are authorized, routed and forwarded ([`http`], [`stream`]) through a tunnel of our own
//! ([`upstream`]). [`dataplane`] runs that on worker threads; [`services`] holds what is bound here.
//! Invariant: what is not bound here, not known or not allowed is refused.

pub mod access_log;
pub mod body;
pub mod config;
pub mod context;
pub mod dataplane;
pub mod detect;
pub mod executor;
pub mod http;
pub mod inbound;
pub mod metrics;
pub mod peer;
pub mod run;
pub mod service;
pub mod services;
pub mod sockets;
pub mod stream;
pub mod streams;
pub mod target;
pub mod telemetry;
pub mod trace;
pub mod upstream;

#[cfg(test)]
mod testing;
