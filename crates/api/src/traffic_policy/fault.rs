//! Fault injection, for testing.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A fault: a delay, a response in place of the service's, or a delay followed by such a response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.delay) || has(self.abort)").message("give delay, abort or both"))]
pub struct FaultInjection {
    /// Headers of the requests that it applies to; all must match. Empty matches every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Delays the request before it is processed further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Responds in place of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
}

/// A condition on a request header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name, case-insensitive.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value, or a regular expression that must match the whole value.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
    /// How the value is compared.
    #[serde(rename = "type", default)]
    pub kind: MatchKind,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MatchKind {
    /// The values are equal.
    #[default]
    Exact,
    /// The regular expression matches the whole value.
    RegularExpression,
}

/// A delay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultDelay {
    /// Length of the delay, at most 1h, for example 500ms or 2s.
    #[schemars(regex(pattern = crate::duration::GATEWAY_PATTERN))]
    pub duration: String,
    /// Percentage of the requests.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 100))]
    pub percentage: i32,
}

/// A response in place of the service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultAbort {
    /// HTTP status of the response. A gRPC call gets the corresponding gRPC status.
    #[schemars(range(min = 200, max = 599))]
    pub http_status: i32,
    /// Percentage of the requests.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 100))]
    pub percentage: i32,
}

fn all() -> i32 {
    100
}
