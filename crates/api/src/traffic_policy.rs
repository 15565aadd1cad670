//! `TrafficPolicy`: traffic settings of services behind a waypoint that neither the Gateway API nor a Kubernetes Service provides.
//!
//! Invariant: every default is set by a type here, so all readers see the same value for an omitted field.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a constant")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::PolicyStatus;

mod fault;
mod resilience;

pub use fault::{FaultAbort, FaultDelay, FaultInjection, HeaderMatch, MatchKind};
pub use resilience::{
    CircuitBreaker, ConsistentHash, Empty, LoadBalancing, OutlierDetection, RateLimit, RateLimitScope,
    RetryBudget, SuccessRate,
};

/// What a waypoint does with the traffic of a service or route.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "ambit.dev",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    namespaced,
    plural = "trafficpolicies",
    singular = "trafficpolicy",
    category = "ambit",
    derive = "PartialEq",
    status = "PolicyStatus",
    doc = "Faults, limits and balancing for the traffic of a service or route. A waypoint enforces it.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='WaypointAccepted')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.targetRefs.all(t, t.kind == 'Service') || !(has(self.circuitBreaker) || has(self.outlierDetection) || has(self.loadBalancing) || has(self.retryBudget) || has(self.consumerRoutes))").message("circuitBreaker, outlierDetection, loadBalancing, retryBudget and consumerRoutes apply to a Service; on a route only fault and rateLimit do"))]
pub struct TrafficPolicySpec {
    /// The Services or routes of this namespace that it is attached to. If several policies are attached to the same object, the oldest applies.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TrafficTarget>,
    /// Faults to inject, for testing. The first whose headers match applies to a request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub fault: Vec<FaultInjection>,
    /// Limits per waypoint process. A request beyond a limit gets 503 at once; only for a connection can it wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// When an endpoint is temporarily removed from load balancing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// How an endpoint is chosen: exactly one of its fields. Defaults to leastLoaded, or to the client's address for a Service with sessionAffinity ClientIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// Request rate limits per waypoint process; a request must be within all of them, or it gets 429. Limits of a Service apply to the
    /// requests of every client. Limits of a route replace them if the route is in the Service's namespace, and apply in addition otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub rate_limit: Vec<RateLimit>,
    /// How many retries are allowed in relation to first attempts. Defaults to 20 percent and 10 per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    /// Whether routes of other namespaces may be attached to the Services. Such a route replaces the routes of the Service for clients of its own namespace, but
    /// faults, limits and policies of the Service still apply to them. A route is not a security boundary: use an AuthorizationPolicy to restrict what clients
    /// may reach. Deny in any policy of a Service applies, not only in the oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_routes: Option<ConsumerRoutes>,
}

/// Whether routes of other namespaces may be attached to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ConsumerRoutes {
    /// They may, as the Gateway API specifies.
    Allow,
    /// They have no effect, and their status reports it.
    Deny,
}

/// An object in the policy's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.group) || self.group == (self.kind == 'Service' ? '' : 'gateway.networking.k8s.io')").message("the group of a Service is empty, that of a route gateway.networking.k8s.io; it may be left out"))]
pub struct TrafficTarget {
    /// API group of the object. It follows from the kind and can be omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Kind of the object.
    pub kind: TrafficTargetKind,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kinds that a TrafficPolicy can be attached to.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
pub enum TrafficTargetKind {
    /// A Service.
    #[default]
    Service,
    /// An HTTPRoute.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// A GRPCRoute.
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
}

impl TrafficTargetKind {
    /// The value, as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
        }
    }
}

#[cfg(test)]
mod tests;
