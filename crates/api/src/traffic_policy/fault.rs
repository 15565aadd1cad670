//! Faults for the sake of tests.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A fault: a pause, an answer instead of the service's, or first one and then the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.delay) || has(self.abort)").message("give delay, abort or both"))]
pub struct FaultInjection {
    /// Headers of the requests that it applies to, all of them. None is every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Waits before anything else is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Answers instead of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
}

/// A header that some requests have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name, in any case.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value, or a regular expression that the whole value must match.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
    /// How the value is compared.
    #[serde(rename = "type", default)]
    pub kind: MatchKind,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MatchKind {
    /// Equal.
    #[default]
    Exact,
    /// The whole value matches.
    RegularExpression,
}

/// A pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultDelay {
    /// How long, at most 1h: 500ms, 2s.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub duration: String,
    /// Share of the requests, percent.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 100))]
    pub percentage: i32,
}

/// An answer instead of the service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultAbort {
    /// HTTP status of the answer. A gRPC call gets the gRPC status that stands for it.
    #[schemars(range(min = 200, max = 599))]
    pub http_status: i32,
    /// Share of the requests, percent.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 100))]
    pub percentage: i32,
}

fn all() -> i32 {
    100
}
