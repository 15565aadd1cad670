//! Limits, ejection and balancing.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of one service in one waypoint process. One that is left out is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CircuitBreaker {
    /// Connections to endpoints. While all are in use requests wait for one, as long as their timeouts allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<i32>,
    /// Requests that wait for a connection, because all are in use or theirs is being made. Zero lets none wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_pending_requests: Option<i32>,
    /// Requests under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<i32>,
    /// Retries under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_retries: Option<i32>,
}

/// When an endpoint is left out, and for how long: give consecutiveFailures, successRate or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.consecutiveFailures) || has(self.successRate)").message("give consecutiveFailures, successRate or both"))]
pub struct OutlierDetection {
    /// Failures in a row (answers 5xx, resets, failed connections) that eject an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub consecutive_failures: Option<i32>,
    /// Ejects endpoints whose share of successes is far below the others'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// How often shares of successes are compared.
    #[serde(default = "ten_seconds")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub interval: String,
    /// How long the first ejection lasts; the n-th lasts n times as long.
    #[serde(default = "half_a_minute")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub base_ejection_time: String,
    /// How long an ejection lasts at most.
    #[serde(default = "five_minutes")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub max_ejection_time: String,
    /// Most endpoints that may be out at once, percent. One may always be.
    #[serde(default = "a_tenth")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: i32,
}

/// Compares endpoints by their share of successes in an interval.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SuccessRate {
    /// Endpoints with enough requests that a comparison needs.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub minimum_hosts: i32,
    /// Requests in an interval that are enough.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub request_volume: i32,
    /// Standard deviations below the mean that are too far, with up to three decimals.
    #[schemars(regex(pattern = r"^[0-9]{1,2}(\.[0-9]{1,3})?$"))]
    pub stdev_factor: String,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { minimum_hosts: 5, request_volume: 100, stdev_factor: "1.9".into() }
    }
}

/// How an endpoint is chosen: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.leastLoaded), has(self.roundRobin), has(self.consistentHash)].filter(given, given).size() == 1").message("give exactly one of leastLoaded, roundRobin and consistentHash"))]
pub struct LoadBalancing {
    /// The better of two random ones, by requests under way and latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_loaded: Option<Empty>,
    /// One after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_robin: Option<Empty>,
    /// The same key goes to the same endpoint while the endpoints stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
}

/// Nothing to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Empty {}

/// What is hashed: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.header), has(self.cookie), has(self.sourceIP)].filter(given, given).size() == 1").message("give exactly one of header, cookie and sourceIP"))]
pub struct ConsistentHash {
    /// Name of a request header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// Name of a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cookie: Option<String>,
    /// Address of the client.
    #[serde(rename = "sourceIP", default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<Empty>,
}

/// A limit of requests: a bucket that fills with requests tokens per interval and holds burst of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// What has a bucket of its own: the Service (or route) as a whole, or each client identity.
    #[serde(default)]
    pub per: RateLimitScope,
    /// Requests admitted per interval.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests: i32,
    /// The interval.
    #[serde(default = "second")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub interval: String,
    /// Requests admitted at once after a pause. Left out, it is as many as requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i32>,
}

/// What has a bucket of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RateLimitScope {
    /// The Service, or the route.
    #[default]
    Service,
    /// Each client identity; clients without one share a bucket.
    Client,
}

/// How many retries there may be, so that they cannot multiply an overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// Retries under way, percent of the requests under way.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
    /// Retries that are always allowed, per second.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_per_second: i32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10 }
    }
}

fn second() -> String {
    "1s".into()
}

fn ten_seconds() -> String {
    "10s".into()
}

fn half_a_minute() -> String {
    "30s".into()
}

fn five_minutes() -> String {
    "5m".into()
}

fn a_tenth() -> i32 {
    10
}
