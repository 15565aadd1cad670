//! ztunnel: the node proxy, L4.
//!
//! Per connection: accept in the pod's network namespace, resolve or judge, tunnel or connect, copy. The parts are
//! [`outbound`], [`inbound`] and [`passthrough`]; [`dataplane`] runs them on worker threads, [`agent`] says for which
//! pods. Invariant: what is not known or not allowed is refused.

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
