//! Routes as the Gateway API means them, in the order in which they are tried.

use std::{sync::Arc, time::Duration};

use super::{Destination, RequestPolicy};
use crate::NamespacedName;

/// The HTTP routes of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpTable {
    /// Matches in order of precedence, each with the index of its rule; the first that holds wins.
    pub matches: Vec<(HttpMatch, usize)>,
    /// Rules.
    pub rules: Vec<HttpRule>,
}

/// One rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRule {
    /// `<kind>/<namespace>/<name>/<rule name or index>`, for logs and metrics.
    pub name: Arc<str>,
    /// What is done to every request of the rule, in order.
    pub filters: Vec<Filter>,
    /// Where requests go; all weights zero, or none at all, is answered 500 (unless a filter answers).
    pub backends: Vec<WeightedBackend>,
    /// Limits of time.
    pub timeouts: RequestTimeouts,
    /// Whether to try again.
    pub retry: Option<Retry>,
    /// Whether a client stays with its endpoint.
    pub session: Option<SessionPersistence>,
    /// Policy attached to the route. Of a producer's route, what it sets replaces what the service's sets, kind by kind.
    pub requests: Option<Arc<RequestPolicy>>,
    /// The route is of another namespace than the service (a consumer route, GEP-1294): its policy is enforced in
    /// addition to the service's, and takes the place of nothing.
    pub is_consumer: bool,
}

/// All of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    /// The path.
    pub path: PathMatch,
    /// The method; none takes any.
    pub method: Option<Arc<str>>,
    /// Headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters; the first value of a name counts.
    pub query: Vec<QueryMatch>,
}

/// How a path is compared; percent-encoding and case are left as they come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Equal, or longer by whole elements: `/a` holds for `/a` and `/a/b`, not for `/ab`. Without trailing slash.
    Prefix(Arc<str>),
    /// The whole path matches (the `regex` crate's syntax).
    Regex(Arc<str>),
}

impl Default for PathMatch {
    /// Every path.
    fn default() -> Self {
        Self::Prefix("".into())
    }
}

/// How a value is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// Equal.
    Exact(Arc<str>),
    /// The whole value matches (the `regex` crate's syntax).
    Regex(Arc<str>),
}

/// A header that must have a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: Arc<str>,
    /// What some value of it must be.
    pub value: ValueMatch,
}

/// A query parameter that must have a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryMatch {
    /// As written, compared exactly.
    pub name: Arc<str>,
    /// What its first value must be.
    pub value: ValueMatch,
}

/// A share of traffic: `numerator` of `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fraction {
    /// At most the denominator.
    pub numerator: u32,
    /// Not zero.
    pub denominator: u32,
}

/// Something done to a request or its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Headers of the request.
    RequestHeaders(HeaderChange),
    /// Headers of the response.
    ResponseHeaders(HeaderChange),
    /// Answered with another address.
    Redirect(Redirect),
    /// Sent on under another address.
    Rewrite(Rewrite),
    /// A copy to another service; its answer is thrown away.
    Mirror(Mirror),
    /// Answers preflights and marks responses (Fetch standard).
    Cors(Cors),
}

/// Changes of headers: set, then add, then remove. Names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// Replaces every value.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Joins the values there are.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Goes.
    pub remove: Vec<Arc<str>>,
}

/// A change of path; the query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// The whole path.
    Full(Arc<str>),
    /// The prefix that the match of the rule named.
    Prefix(Arc<str>),
}

/// An answer with another address; what is not given stays as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// Host.
    pub hostname: Option<Arc<str>>,
    /// Path.
    pub path: Option<PathChange>,
    /// Port. None: the scheme's own when `scheme` is given, else the port the client used.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Whether `x-forwarded-proto` gives the client's scheme: there are proxies in front of the waypoint that are trusted.
    pub trusts_forwarded_proto: bool,
}

/// Another address for the upstream request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Host header.
    pub hostname: Option<Arc<str>>,
    /// Path.
    pub path: Option<PathChange>,
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where copies go.
    pub to: Destination,
    /// How many requests are copied; none is all.
    pub fraction: Option<Fraction>,
}

/// Cross-origin rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `*`, `scheme://host[:port]`, or with `*.` before the host.
    pub allow_origins: Vec<Arc<str>>,
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
    /// Methods, or `*`.
    pub allow_methods: Vec<Arc<str>>,
    /// Request headers, or `*`.
    pub allow_headers: Vec<Arc<str>>,
    /// Response headers that scripts may read, or `*`.
    pub expose_headers: Vec<Arc<str>>,
    /// How long a preflight's answer holds.
    pub max_age: Duration,
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    /// Its share of the sum of all; 0 takes nothing.
    pub weight: u32,
    /// Where to.
    pub backend: Backend,
    /// What is done to its requests, after the filters of the rule.
    pub filters: Vec<Filter>,
}

/// Where a rule leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A service.
    Service(Destination),
    /// A reference that does not hold, with the reason: answered 500, streams are reset.
    Invalid(Arc<str>),
}

/// Limits of time; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimeouts {
    /// From the request to the end of the response, retries included: then 504.
    pub request: Option<Duration>,
    /// One try, from sending it to the end of its response.
    pub backend: Option<Duration>,
}

/// When and how often to try again. Only while no byte of a response went to the client, and only requests whose
/// whole body is still held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Status codes that are tried again; a failed connection always is.
    pub codes: Vec<u16>,
    /// Tries after the first.
    pub attempts: u32,
    /// Shortest pause before a try; doubled for each further one, with jitter.
    pub backoff: Option<Duration>,
}

/// A client stays with its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    /// Name of the cookie or header.
    pub name: Arc<str>,
    /// Cookie, or a header of this name.
    pub cookie: Option<SessionCookie>,
    /// Ends the session this long after it began.
    pub absolute_timeout: Option<Duration>,
    /// Ends the session after this long unused.
    pub idle_timeout: Option<Duration>,
    /// Owner of the key that signs cookies: the route.
    pub route: NamespacedName,
}

/// A cookie's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCookie {
    /// Whether it carries an expiry.
    pub lifetime: SessionLifetime,
}

/// When a cookie ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionLifetime {
    /// With the client's session.
    #[default]
    Session,
    /// At the absolute timeout.
    Permanent,
}
