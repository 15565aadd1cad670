//! What the `Mesh` says of every waypoint; a Gateway says more by its own parameters.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a constant")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resources;

/// The L7 proxies.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Waypoints {
    /// Whether a namespace of the mesh that is labelled `istio.io/use-waypoint` gets the Gateway that it names, when there is none.
    pub auto_create: bool,
    /// How many pods a waypoint has, unless its Gateway's parameters say otherwise.
    pub replicas: Replicas,
    /// What its container asks for and may use, unless its Gateway's parameters say otherwise.
    pub resources: Resources,
    /// What happens to services whose waypoint has no ready pod any more, unless its Gateway's parameters say otherwise.
    pub failure_policy: FailurePolicy,
    /// How many proxies stand before the gateway that calls a waypoint, as in Istio's gatewayTopology: remoteIpBlocks and remote.ip
    /// are then the last address of X-Forwarded-For (0), or the one before so many. Unless its Gateway says otherwise in the
    /// annotation proxy.istio.io/config. Without either, X-Forwarded-For counts only in rules that name their peers, by
    /// serviceAccounts or whole principals.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
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

/// How many pods a waypoint has; by load when `max` is more than `min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min must not be more than max"))]
pub struct Replicas {
    /// At least so many.
    #[serde(default = "replicas_min")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: i32,
    /// At most so many.
    #[serde(default = "replicas_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,
}

/// One may fail, or be replaced.
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

/// What happens to services whose waypoint has no ready pod any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum FailurePolicy {
    /// Their traffic fails: nobody gets round the policies that the waypoint enforces.
    #[default]
    Closed,
    /// Their traffic goes on without it, at L4, and the policies that it enforces do not hold meanwhile.
    Open,
}
