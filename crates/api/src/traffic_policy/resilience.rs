//! Circuit breaking, outlier detection, load balancing, rate limits and retry budgets.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of one service in one waypoint process. An omitted limit is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CircuitBreaker {
    /// Connections to endpoints. While all are in use, requests wait for one until their timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<i32>,
    /// Requests waiting for a connection, because all are in use or theirs is being established. With zero, none may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_pending_requests: Option<i32>,
    /// Concurrent requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<i32>,
    /// Concurrent retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_retries: Option<i32>,
}

/// When an endpoint is ejected, and for how long: give consecutiveFailures, successRate or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.consecutiveFailures) || has(self.successRate)").message("give consecutiveFailures, successRate or both"))]
pub struct OutlierDetection {
    /// Consecutive failures (5xx responses, resets, failed connections) after which an endpoint is ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub consecutive_failures: Option<i32>,
    /// Ejects endpoints whose success rate is far below that of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// How often success rates are compared.
    #[serde(default = "ten_seconds")]
    #[schemars(regex(pattern = crate::duration::GATEWAY_PATTERN))]
    pub interval: String,
    /// Duration of the first ejection; the n-th lasts n times as long.
    #[serde(default = "half_a_minute")]
    #[schemars(regex(pattern = crate::duration::GATEWAY_PATTERN))]
    pub base_ejection_time: String,
    /// Longest duration of an ejection.
    #[serde(default = "five_minutes")]
    #[schemars(regex(pattern = crate::duration::GATEWAY_PATTERN))]
    pub max_ejection_time: String,
    /// Largest percentage of endpoints that may be ejected at the same time. One endpoint may always be.
    #[serde(default = "a_tenth")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: i32,
}

/// Compares endpoints by their success rate in an interval.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SuccessRate {
    /// Fewest endpoints with enough requests for a comparison.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub minimum_hosts: i32,
    /// Requests in an interval from which an endpoint takes part in the comparison.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub request_volume: i32,
    /// Number of standard deviations below the mean at which an endpoint is ejected, with up to three decimals.
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
    /// Picks two endpoints at random and uses the better, by concurrent requests and latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_loaded: Option<Empty>,
    /// Uses the endpoints in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_robin: Option<Empty>,
    /// Sends requests with the same key to the same endpoint, as long as the set of endpoints does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
}

/// No settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Empty {}

/// The hash key: exactly one of its fields.
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

/// A rate limit, as a token bucket: it refills with `requests` tokens per interval and holds `burst` tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Which requests share a bucket: all of the Service (or route), or those of one client identity.
    #[serde(default)]
    pub per: RateLimitScope,
    /// Requests allowed per interval.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests: i32,
    /// Length of the interval.
    #[serde(default = "second")]
    #[schemars(regex(pattern = crate::duration::GATEWAY_PATTERN))]
    pub interval: String,
    /// Size of a burst after an idle time. Defaults to the value of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i32>,
}

/// Which requests share a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RateLimitScope {
    /// All requests of the Service or route.
    #[default]
    Service,
    /// Those of one client identity; clients without an identity share a bucket.
    Client,
}

/// How many retries are allowed, so that they cannot amplify an overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// Concurrent retries, as a percentage of the concurrent requests.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
    /// Retries per second that are always allowed.
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
