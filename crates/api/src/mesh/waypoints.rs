//! Settings for every waypoint; a Gateway's own parameters override them.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a constant")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::resources::Resources;

/// The L7 proxies.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Waypoints {
    /// Whether the operator creates the Gateway that a namespace of the mesh names in its label `istio.io/use-waypoint`, if it does not exist.
    pub auto_create: bool,
    /// Number of pods of a waypoint. Its Gateway's parameters override it.
    pub replicas: Replicas,
    /// Compute resources of its container. Its Gateway's parameters override them.
    pub resources: Resources,
    /// What happens to services whose waypoint has no ready pod left. Its Gateway's parameters override it.
    pub failure_policy: FailurePolicy,
    /// Number of trusted proxies in front of the gateway that calls a waypoint, as in Istio's gatewayTopology. With 0, remoteIpBlocks and remote.ip are
    /// the last address of X-Forwarded-For; with n, the address n places before it. The annotation proxy.istio.io/config of a Gateway overrides it.
    /// If neither is set, X-Forwarded-For is used only by rules that name their peers, with serviceAccounts or complete principals.
    /// If either is set, a redirect takes the client's scheme from X-Forwarded-Proto.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16), extend("format" = "int32"))]
    pub num_trusted_proxies: Option<u32>,
}

impl Default for Waypoints {
    fn default() -> Self {
        Self {
            auto_create: true,
            replicas: Replicas::default(),
            resources: Resources::default(),
            failure_policy: FailurePolicy::default(),
            num_trusted_proxies: None,
        }
    }
}

/// Number of pods of a waypoint. It is scaled by load if `max` is greater than `min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min must not be more than max"))]
pub struct Replicas {
    /// Fewest pods.
    #[serde(default = "replicas_min")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: i32,
    /// Most pods.
    #[serde(default = "replicas_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,
}

/// Two, so that one may fail or be replaced.
fn replicas_min() -> i32 {
    2
}

fn replicas_max() -> i32 {
    5
}

impl Default for Replicas {
    fn default() -> Self {
        Self { min: replicas_min(), max: replicas_max() }
    }
}

/// What happens to services whose waypoint has no ready pod left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum FailurePolicy {
    /// Their traffic is blocked, so that the policies that the waypoint enforces cannot be bypassed.
    #[default]
    Closed,
    /// Their traffic continues without the waypoint, at L4. The policies that the waypoint enforces do not apply in the meantime.
    Open,
}
