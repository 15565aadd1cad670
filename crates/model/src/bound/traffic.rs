//! Compiled TrafficPolicy: what happens to requests, and how a destination is treated.

use std::{sync::Arc, time::Duration};

use super::matching::{Fraction, HeaderMatch};

/// Applied to requests before routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestPolicy {
    /// Fault injection; the first fault whose headers match applies.
    pub faults: Vec<Fault>,
    /// Rate limits; a request that any of them rejects gets 429.
    pub rate_limits: Vec<RateLimit>,
}

/// Fault injection, for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Requests it applies to; empty matches all.
    pub headers: Vec<HeaderMatch>,
    /// Delay before the request goes on.
    pub delay: Option<FaultDelay>,
    /// Response sent instead of forwarding the request, after the delay.
    pub abort: Option<FaultAbort>,
}

/// An injected delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultDelay {
    /// Length of the delay.
    pub duration: Duration,
    /// Share of requests that are delayed.
    pub fraction: Fraction,
}

/// An injected response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultAbort {
    /// HTTP status; a gRPC request gets the corresponding gRPC status.
    pub status: u16,
    /// Share of requests that are aborted.
    pub fraction: Fraction,
}

/// A rate limit: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What each bucket counts.
    pub scope: RateLimitScope,
    /// Requests admitted per interval.
    pub requests: u32,
    /// Length of the interval.
    pub interval: Duration,
    /// Capacity of the bucket: requests admitted at once after a pause. At least 1.
    pub burst: u32,
}

/// What each bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateLimitScope {
    /// All requests of the service (or route).
    Service,
    /// The requests of one client identity; clients without identity share a bucket.
    Client,
}

/// How a destination is treated, for all clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationPolicy {
    /// Limits on connections, requests and retries.
    pub breaker: CircuitBreaker,
    /// When endpoints are ejected; `None` ejects none.
    pub outliers: Option<OutlierDetection>,
    /// Load balancing algorithm.
    pub balancer: Balancer,
    /// Limit on retries; `None` means [`RetryBudget::default`].
    pub retry_budget: Option<RetryBudget>,
}

/// Limits for one destination in one waypoint process; `None` means no limit. Requests beyond a
/// limit get 503 at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Connections to all endpoints together.
    pub max_connections: Option<u32>,
    /// Requests waiting for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
}

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Consecutive failures (5xx, resets, failed connections) after which an endpoint is ejected;
    /// `None` does not count them.
    pub consecutive_failures: Option<u32>,
    /// Ejection by comparison with the other endpoints; `None` does not compare.
    pub success_rate: Option<SuccessRate>,
    /// How often success rates are compared.
    pub interval: Duration,
    /// Length of the first ejection; the n-th takes n times as long.
    pub base_ejection: Duration,
    /// Longest ejection.
    pub max_ejection: Duration,
    /// Largest share of endpoints that may be ejected at once, in percent; one endpoint may always
    /// be.
    pub max_ejected_percent: u32,
}

/// Ejects endpoints whose success rate is far below the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// Number of endpoints with enough requests that a comparison needs.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
    /// Allowed distance below the mean, in thousandths of a standard deviation.
    pub stdev_factor_milli: u32,
}

/// Load balancing algorithm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancer {
    /// The better of two random endpoints, by requests in flight and latency.
    #[default]
    LeastLoaded,
    /// Each endpoint in turn.
    RoundRobin,
    /// Consistent hashing: the same key goes to the same endpoint.
    ConsistentHash(HashKey),
}

/// The hash key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// Value of a request header, named in lower case.
    Header(Arc<str>),
    /// Value of a cookie.
    Cookie(Arc<str>),
    /// Client address.
    SourceIp,
}

/// Limits retries in proportion to requests, so that they cannot multiply an overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries in flight, in percent of requests in flight.
    pub percent: u32,
    /// Retries per second that are always allowed.
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    /// The defaults of Linkerd and Envoy: 20 percent, and 10 per second.
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10 }
    }
}
