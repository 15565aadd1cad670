//! What a waypoint does with the traffic of one service that is bound to it, or of the pods of one namespace: the
//! control plane compiles it, the waypoint only executes it.
//!
//! Invariant: nothing in here needs another look at Kubernetes, and what could not be compiled is present as a
//! refusal ([`Backend::Invalid`], [`BoundService::unenforceable`]), never left out.

mod authentication;
mod external;
mod route;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use authentication::{ClaimHeader, JwtProvider, TokenLocation};
pub use external::{CheckBody, CheckProtocol, CheckProvider, ExternalCheck, HttpCheck};
pub use route::{
    Backend, Cors, Filter, Fraction, HeaderChange, HeaderMatch, HttpMatch, HttpRule, HttpTable, Mirror,
    PathChange, PathMatch, QueryMatch, Redirect, RequestTimeouts, Retry, Rewrite, SessionCookie,
    SessionLifetime, SessionPersistence, ValueMatch, WeightedBackend,
};
pub use traffic::{
    Balancer, CircuitBreaker, DestinationPolicy, Fault, FaultAbort, FaultDelay, HashKey, OutlierDetection,
    RateLimit, RateLimitScope, RequestPolicy, RetryBudget, SuccessRate,
};

use crate::{NamespacedName, Policy};

/// What a port speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// Nobody said: the first bytes tell HTTP from anything else.
    #[default]
    Detect,
    /// HTTP/1.1, or HTTP/2 with prior knowledge.
    Http,
    /// HTTP/2 with prior knowledge (h2c, gRPC).
    Http2,
    /// Opaque bytes.
    Tcp,
    /// TLS that the application terminates itself: opaque bytes.
    Tls,
}

impl AppProtocol {
    /// What is spoken on a port of which nobody said: SMTP, DNS, MySQL and MongoDB have theirs, and their clients may wait
    /// for the server to speak first.
    pub fn of_port(number: u16) -> Self {
        match number {
            25 | 53 | 3306 | 27017 => Self::Tcp,
            _ => Self::Detect,
        }
    }
}

/// A service port, as a route or a mirror names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// `namespace/hostname` of the service.
    pub service: NamespacedName,
    /// Its port.
    pub port: u16,
}

/// How to treat a destination, whichever route leads there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationSettings {
    /// What its endpoints speak.
    pub protocol: AppProtocol,
    /// Limits and balancing, of the TrafficPolicy attached to the service.
    pub policy: Arc<DestinationPolicy>,
}

/// One port of a bound service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPort {
    /// Service port.
    pub port: u16,
    /// What clients speak on it.
    pub protocol: AppProtocol,
    /// Where its traffic goes.
    pub routes: Routes,
    /// By namespace of the client's identity; such routes replace [`Self::routes`] for that client.
    pub consumers: BTreeMap<Arc<str>, Routes>,
}

/// Where the traffic of a port goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// HTTP. None: no route is attached, and everything goes to the service itself.
    /// A request that no match of a table takes is answered 404.
    pub http: Option<Arc<HttpTable>>,
    /// TCP and TLS, by weight. None: no route is attached, and everything goes to the service itself.
    pub stream: Option<Vec<WeightedBackend>>,
    /// TLS by server name, which comes before [`Self::stream`]; of equals the first.
    pub named: Vec<NamedStream>,
}

/// Where TLS connections for some names go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedStream {
    /// Names in lower case, at least one; `*.` stands for one label or more.
    pub names: Vec<Arc<str>>,
    /// By weight.
    pub backends: Vec<WeightedBackend>,
}

/// Whose traffic it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Addressed {
    /// Traffic addressed to the service.
    #[default]
    Service,
    /// Traffic addressed to pods of the namespace: those whose [`crate::Workload::waypoint`] is this waypoint, and those
    /// of these uids, which are on their way to it or from it.
    Pods(BTreeSet<Arc<str>>),
}

/// Name, in the place of a hostname, of what is about the pods of a namespace.
pub const PODS: &str = "*";

/// A service bound to a waypoint, or the pods of a namespace that are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundService {
    /// `namespace/hostname`, the xDS resource name; `namespace/*` of pods.
    pub key: NamespacedName,
    /// Whose traffic it is about.
    pub addressed: Addressed,
    /// Its ports; a tunnel to any other port is refused. None of pods, whose every port is served.
    pub ports: Vec<BoundPort>,
    /// Every destination that a route, a mirror or the service itself leads to.
    pub destinations: BTreeMap<Destination, DestinationSettings>,
    /// What is done to requests before they are routed.
    pub requests: Arc<RequestPolicy>,
    /// Who may vouch for a request.
    pub authentication: Vec<JwtProvider>,
    /// Policies that judge its requests and connections.
    pub authorization: Vec<Arc<Policy>>,
    /// Policies of action CUSTOM: requests that meet one are put to its provider before the others judge.
    pub checks: Vec<ExternalCheck>,
    /// Policies that apply and cannot be enforced, with the reason; while there is one, everything is refused.
    pub unenforceable: Vec<(NamespacedName, Arc<str>)>,
}
