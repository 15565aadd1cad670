//! Resilience, as a TrafficPolicy asks for it: what is done to requests, and how a destination is treated.

use std::{sync::Arc, time::Duration};

use super::{Fraction, HeaderMatch};

/// What is done to requests before they are routed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestPolicy {
    /// Faults; the first whose headers hold applies.
    pub faults: Vec<Fault>,
    /// Limits, all of which must admit a request; else 429.
    pub rate_limits: Vec<RateLimit>,
}

/// A fault for the sake of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Requests it applies to; none is all.
    pub headers: Vec<HeaderMatch>,
    /// Waits first.
    pub delay: Option<FaultDelay>,
    /// Then answers instead of the service.
    pub abort: Option<FaultAbort>,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultDelay {
    /// How long.
    pub duration: Duration,
    /// Share of requests.
    pub fraction: Fraction,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultAbort {
    /// HTTP status; a gRPC request gets the gRPC status that stands for it.
    pub status: u16,
    /// Share of requests.
    pub fraction: Fraction,
}

/// A limit on requests: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What has a bucket.
    pub scope: RateLimitScope,
    /// Requests admitted per interval.
    pub requests: u32,
    /// The interval.
    pub interval: Duration,
    /// Requests admitted at once after a pause; at least 1.
    pub burst: u32,
}

/// What has a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateLimitScope {
    /// The service (or route) as a whole.
    Service,
    /// Each client identity; clients without one share a bucket.
    Client,
}

/// How a destination is treated, whoever sends there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationPolicy {
    /// Limits.
    pub breaker: CircuitBreaker,
    /// Which endpoints are left out for a while; none ejects nobody.
    pub outliers: Option<OutlierDetection>,
    /// How an endpoint is chosen.
    pub balancer: Balancer,
    /// How many retries there may be; none is [`RetryBudget::default`].
    pub retry_budget: Option<RetryBudget>,
}

/// Limits of one destination in one waypoint process; none is no limit. Beyond one: 503 at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Connections to endpoints.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests under way.
    pub max_requests: Option<u32>,
    /// Retries under way.
    pub max_retries: Option<u32>,
}

/// When an endpoint is left out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Failures (5xx, resets, failed connections) in a row; none does not count them.
    pub consecutive_failures: Option<u32>,
    /// Ejects by comparison with the other endpoints.
    pub success_rate: Option<SuccessRate>,
    /// How often success rates are compared.
    pub interval: Duration,
    /// First ejection; the n-th takes n times as long.
    pub base_ejection: Duration,
    /// Longest ejection.
    pub max_ejection: Duration,
    /// Most endpoints that may be out at once, percent; at least one may always be.
    pub max_ejected_percent: u32,
}

/// Ejects endpoints whose success rate is far below the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// Endpoints with enough requests that a comparison needs.
    pub minimum_hosts: u32,
    /// Requests in an interval that count as enough.
    pub request_volume: u32,
    /// Thousandths of a standard deviation below the mean that are too far.
    pub stdev_factor_milli: u32,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancer {
    /// The better of two random ones, by requests under way and latency.
    #[default]
    LeastLoaded,
    /// One after the other.
    RoundRobin,
    /// The same key goes to the same endpoint.
    ConsistentHash(HashKey),
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// A request header, lower case.
    Header(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
    /// The client's address.
    SourceIp,
}

/// How many retries there may be beside first tries, so that they cannot multiply an overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries under way, percent of requests under way.
    pub percent: u32,
    /// Retries that are always allowed, per second.
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    /// What Linkerd and Envoy recommend: a fifth, and ten a second.
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10 }
    }
}
