//! ztunnel: the node proxy for L4.
//!
//! Each connection is accepted in the pod's network namespace, routed or evaluated, tunnelled or
//! connected, and copied. The parts are `outbound`, `inbound` and `passthrough`;
//! `dataplane` runs them on worker threads, for the pods from `agent`. Invariant: what is
//! unknown or not permitted is refused.

mod access_log;
mod agent;
mod config;
mod connections;
mod context;
mod copy;
mod dataplane;
mod error;
mod flow;
mod inbound;
mod metrics;
mod outbound;
mod passthrough;
mod pods;
mod run;
mod sockets;

pub use agent::{Held, Link};
pub use config::{Config, HELP};
pub use context::Shared;
pub use dataplane::DataPlane;
pub use metrics::Metrics;
pub use pods::{HANDSHAKES_PER_CLIENT_MAX, Pod};
pub use run::run;
