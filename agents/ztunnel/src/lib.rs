//! ztunnel: the node proxy for L4.
//!
//! Each connection is accepted in the pod's network namespace, routed or evaluated, tunnelled or
//! connected, and copied. The parts are [`outbound`], [`inbound`] and [`passthrough`];
//! [`dataplane`] runs them on worker threads, for the pods from [`agent`]. Invariant: what is
//! unknown or not permitted is refused.

pub mod access_log;
pub mod agent;
pub mod config;
pub mod connections;
pub mod context;
pub mod copy;
pub mod dataplane;
pub mod error;
pub mod flow;
pub mod inbound;
pub mod metrics;
pub mod outbound;
pub mod passthrough;
pub mod pods;
pub mod run;
pub mod sockets;
