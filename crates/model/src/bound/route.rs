//! Compiled Gateway API routes, in the order in which they are matched.

use std::{sync::Arc, time::Duration};

use super::{
    destination::Destination,
    matching::{Fraction, HttpMatch},
    traffic::RequestPolicy,
};
use crate::NamespacedName;

/// The HTTP routes of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpTable {
    /// Matches in order of precedence, each with the index of its rule; the first match wins.
    pub matches: Vec<(HttpMatch, usize)>,
    /// Rules, referenced by index.
    pub rules: Vec<HttpRule>,
}

/// One rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRule {
    /// `<kind>/<namespace>/<name>/<rule name or index>`, for logs and metrics.
    pub name: Arc<str>,
    /// Applied to every request of the rule, in order.
    pub filters: Vec<Filter>,
    /// Backends by weight. If all weights are zero or there are none, the response is 500 (unless a
    /// filter answers).
    pub backends: Vec<WeightedBackend>,
    /// Time limits.
    pub timeouts: RequestTimeouts,
    /// When and how often to retry; `None` means never.
    pub retry: Option<Retry>,
    /// Session persistence, if the rule asks for it.
    pub session: Option<SessionPersistence>,
    /// The TrafficPolicy attached to the route. For a producer route, each kind it sets replaces
    /// the same kind of the service's policy.
    pub requests: Option<Arc<RequestPolicy>>,
    /// The route is in another namespace than the service (a consumer route, GEP-1294): its policy
    /// is enforced in addition to the service's and replaces nothing.
    pub is_consumer: bool,
}

/// A change to a request or its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Change request headers.
    RequestHeaders(HeaderChange),
    /// Change response headers.
    ResponseHeaders(HeaderChange),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Rewrite host or path of the upstream request.
    Rewrite(Rewrite),
    /// Send a copy to another service and discard its response.
    Mirror(Mirror),
    /// Answer preflights and add CORS headers to responses (Fetch standard).
    Cors(Cors),
}

/// Header changes: set, then add, then remove. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// Replaces all existing values.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Appended to the existing values.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Header names to remove.
    pub remove: Vec<Arc<str>>,
}

/// A change of the path; the query is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// Replaces the whole path.
    Full(Arc<str>),
    /// Replaces the prefix that the rule matched.
    Prefix(Arc<str>),
}

/// A redirect; parts that are not set stay as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// Host of the new location.
    pub hostname: Option<Arc<str>>,
    /// Path of the new location.
    pub path: Option<PathChange>,
    /// Port of the new location. `None`: the default port of `scheme` when that is set, otherwise
    /// the port of the request.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Whether `x-forwarded-proto` gives the client's scheme, because trusted proxies stand in
    /// front of the waypoint.
    pub trusts_forwarded_proto: bool,
}

/// Rewrites of the upstream request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// New host.
    pub hostname: Option<Arc<str>>,
    /// New path.
    pub path: Option<PathChange>,
}

/// Request mirroring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Destination of the copies.
    pub to: Destination,
    /// Share of requests to copy; `None` copies all.
    pub fraction: Option<Fraction>,
}

/// Cross-origin rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `*`, `scheme://host[:port]`, or a host that starts with `*.`.
    pub allow_origins: Vec<Arc<str>>,
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
    /// Methods, or `*`.
    pub allow_methods: Vec<Arc<str>>,
    /// Request headers, or `*`.
    pub allow_headers: Vec<Arc<str>>,
    /// Response headers exposed to scripts, or `*`.
    pub expose_headers: Vec<Arc<str>>,
    /// How long a preflight response may be cached.
    pub max_age: Duration,
}

/// A backend and its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    /// Share of the sum of all weights; 0 receives no traffic.
    pub weight: u32,
    /// Where requests go.
    pub backend: Backend,
    /// Filters for requests to this backend, applied after those of the rule.
    pub filters: Vec<Filter>,
}

/// The target of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A service.
    Service(Destination),
    /// An invalid reference, with the reason: requests get 500, streams are reset.
    Invalid(Arc<str>),
}

/// Time limits; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimeouts {
    /// From the request to the end of the response, retries included; then 504.
    pub request: Option<Duration>,
    /// One try, from sending it to the end of its response; then 504 or a retry.
    pub backend: Option<Duration>,
}

/// When and how often to retry. Retries happen only before the first response byte reached the
/// client, and only while the whole request body is buffered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Response status codes that are retried; a failed connection always is.
    pub codes: Vec<u16>,
    /// Tries after the first.
    pub attempts: u32,
    /// Shortest pause before a retry; doubled for each further one, with jitter.
    pub backoff: Option<Duration>,
}

/// Session persistence: a client stays with its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    /// Name of the cookie or header.
    pub name: Arc<str>,
    /// Set for a cookie; `None` uses a header.
    pub cookie: Option<SessionCookie>,
    /// The session ends this long after it began.
    pub absolute_timeout: Option<Duration>,
    /// The session ends after this long without a request.
    pub idle_timeout: Option<Duration>,
    /// The route that owns the key with which cookies are signed.
    pub route: NamespacedName,
}

/// Lifetime of a session cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCookie {
    /// Whether the cookie carries an expiry.
    pub lifetime: SessionLifetime,
}

/// When a session cookie ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionLifetime {
    /// With the browser session.
    #[default]
    Session,
    /// At the absolute timeout.
    Permanent,
}
