//! The data model of the mesh, and the evaluation of policies.
//!
//! Plain data and functions: no I/O, no clock, no async, no Kubernetes, no wire format.

pub mod authorization;
pub mod bound;
pub mod peer_authentication;
pub mod service;
mod spiffe;
pub mod workload;

pub use authorization::{
    Action, Applied, Clause, Connection, Match, Policy, PolicySet, Request, RequestMatch, Rule, Scope,
    StringMatch, Token, Verdict,
};
pub use bound::{Addressed, AppProtocol, BoundPort, BoundService, Destination};
pub use peer_authentication::Mode;
pub use service::{HealthPolicy, LoadBalancing, LoadBalancingMode, LoadBalancingScope, Service, ServicePort};
pub use spiffe::{InvalidSpiffe, Spiffe};
pub use workload::{
    GUARD_PREFIX, GatewayAddress, GatewayDestination, Health, Locality, NamespacedName, NetworkAddress,
    NetworkMode, PortMapping, TunnelProtocol, Workload, WorkloadKind,
};

/// TCP port of HBONE on a destination pod.
pub const HBONE_PORT: u16 = 15008;
/// TCP port of a proxy's outbound listener inside a pod.
pub const OUTBOUND_PORT: u16 = 15001;
/// TCP port of a proxy's plaintext inbound listener inside a pod.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;
/// TCP port of `/healthz/ready` of operator and proxies.
pub const HEALTH_PORT: u16 = 15021;
/// TCP port of `/metrics` of operator and proxies.
pub const METRICS_PORT: u16 = 15020;
/// The trust domain that xDS resources omit.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
