//! What a waypoint does with the traffic of one service bound to it, or of the pods of one
//! namespace. The control plane compiles this; the waypoint only executes it.
//!
//! Invariant: executing it needs no further look at Kubernetes. Whatever could not be compiled is
//! present as a refusal ([`Backend::Invalid`], [`BoundService::unenforceable`]), never left out.

mod authentication;
mod destination;
mod external;
mod matching;
mod route;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use authentication::{ClaimHeader, JwtProvider, TokenLocation};
pub use destination::Destination;
pub use external::{CheckBody, CheckProtocol, CheckProvider, ExternalCheck, HttpCheck};
pub use matching::{Fraction, HeaderMatch, HttpMatch, PathMatch, QueryMatch, ValueMatch};
pub use route::{
    Backend, Cors, Filter, HeaderChange, HttpRule, HttpTable, Mirror, PathChange, Redirect, RequestTimeouts,
    Retry, Rewrite, SessionCookie, SessionLifetime, SessionPersistence, WeightedBackend,
};
pub use traffic::{
    Balancer, CircuitBreaker, DestinationPolicy, Fault, FaultAbort, FaultDelay, HashKey, OutlierDetection,
    RateLimit, RateLimitScope, RequestPolicy, RetryBudget, SuccessRate,
};

use crate::{NamespacedName, Policy};

/// The application protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// Not declared: the first bytes of a connection distinguish HTTP from other protocols.
    #[default]
    Detect,
    /// HTTP/1.1, or HTTP/2 with prior knowledge.
    Http,
    /// HTTP/2 with prior knowledge (h2c, gRPC).
    Http2,
    /// Opaque bytes.
    Tcp,
    /// TLS that the application terminates itself, forwarded as opaque bytes.
    Tls,
}

impl AppProtocol {
    /// The protocol of a port that declares none. SMTP, DNS, MySQL and MongoDB ports are opaque,
    /// because there the client may wait for the server to speak first.
    pub fn of_port(number: u16) -> Self {
        match number {
            25 | 53 | 3306 | 27017 => Self::Tcp,
            _ => Self::Detect,
        }
    }
}

/// Settings of one destination, whichever route leads there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationSettings {
    /// The protocol of its endpoints.
    pub protocol: AppProtocol,
    /// Limits and load balancing from the TrafficPolicy attached to the service.
    pub policy: Arc<DestinationPolicy>,
}

/// One port of a bound service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPort {
    /// Service port.
    pub port: u16,
    /// The protocol that clients use.
    pub protocol: AppProtocol,
    /// Where its traffic goes.
    pub routes: Routes,
    /// Consumer routes by namespace of the client's identity; they replace [`Self::routes`] for
    /// that client.
    pub consumers: BTreeMap<Arc<str>, Routes>,
}

/// Where the traffic of a port goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// HTTP routes. `None`: no route is attached, and everything goes to the service itself. A
    /// request that no match accepts gets 404.
    pub http: Option<Arc<HttpTable>>,
    /// TCP and TLS backends by weight. `None`: no route is attached, and everything goes to the
    /// service itself.
    pub stream: Option<Vec<WeightedBackend>>,
    /// TLS backends by server name, checked before [`Self::stream`]; the first of equal names wins.
    pub named: Vec<NamedStream>,
}

/// Backends for TLS connections with these server names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedStream {
    /// Server names in lower case, at least one; `*.` matches one or more labels.
    pub names: Vec<Arc<str>>,
    /// Backends by weight.
    pub backends: Vec<WeightedBackend>,
}

/// What the traffic is addressed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Addressed {
    /// Traffic addressed to the service.
    #[default]
    Service,
    /// Traffic addressed to pods of the namespace: those whose [`crate::Workload::waypoint`] is
    /// this waypoint, and those with these uids, which are being moved to or from it.
    Pods(BTreeSet<Arc<str>>),
}

/// Used in place of a hostname in the key for the pods of a namespace.
pub const PODS: &str = "*";

/// A service bound to a waypoint, or the bound pods of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundService {
    /// The xDS resource name: `namespace/hostname` of a service, `namespace/*` for pods.
    pub key: NamespacedName,
    /// What the traffic is addressed to.
    pub addressed: Addressed,
    /// Ports of the service; a tunnel to any other port is refused. Empty for pods, where every
    /// port is served.
    pub ports: Vec<BoundPort>,
    /// Settings of every destination that a route, a mirror or the service itself leads to.
    pub destinations: BTreeMap<Destination, DestinationSettings>,
    /// Faults and rate limits, applied before routing.
    pub requests: Arc<RequestPolicy>,
    /// Accepted token issuers.
    pub authentication: Vec<JwtProvider>,
    /// Policies evaluated for its requests and connections.
    pub authorization: Vec<Arc<Policy>>,
    /// CUSTOM policies: a request that matches one is sent to its provider before the other
    /// policies are evaluated.
    pub checks: Vec<ExternalCheck>,
    /// Policies that apply but cannot be enforced, with the reason. While there is one, everything
    /// is refused.
    pub unenforceable: Vec<(NamespacedName, Arc<str>)>,
}
