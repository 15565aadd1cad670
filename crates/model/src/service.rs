//! Services: virtual addresses, ports, and load balancing.

use std::sync::Arc;

use crate::{GatewayAddress, NamespacedName, NetworkAddress};

/// One port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Port on the virtual address.
    pub port: u16,
    /// Port on the endpoints; 0 when it is a named port, whose number each endpoint defines.
    pub target_port: u16,
}

/// A topology level at which client and endpoint can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadBalancingScope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// How the scopes are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LoadBalancingMode {
    /// Scopes are ignored.
    #[default]
    Standard,
    /// Only endpoints that match the client in every scope.
    Strict,
    /// Prefers the endpoints that match the longest prefix of the scopes.
    Failover,
    /// The original destination, without load balancing.
    Passthrough,
}

/// Which endpoints are eligible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthPolicy {
    /// Only ready endpoints.
    #[default]
    OnlyHealthy,
    /// All endpoints (`publishNotReadyAddresses`).
    AllowAll,
}

/// How endpoints are selected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadBalancing {
    /// Topology levels, most important first.
    pub routing_preference: Vec<LoadBalancingScope>,
    /// How the scopes are applied.
    pub mode: LoadBalancingMode,
    /// Which endpoints are eligible.
    pub health_policy: HealthPolicy,
    /// Client IP affinity (`sessionAffinity: ClientIP`).
    pub by_client: bool,
}

/// A Kubernetes service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Object name.
    pub name: Arc<str>,
    /// Object namespace.
    pub namespace: Arc<str>,
    /// `<name>.<namespace>.svc.<cluster domain>`
    pub hostname: Arc<str>,
    /// Virtual addresses; empty for a headless service.
    pub addresses: Vec<NetworkAddress>,
    /// TCP ports.
    pub ports: Vec<ServicePort>,
    /// Further SPIFFE ids that its endpoints may present.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Waypoint for traffic addressed to the service.
    pub waypoint: Option<GatewayAddress>,
    /// How endpoints are selected.
    pub load_balancing: LoadBalancing,
    /// Whether this definition wins when several services have the same hostname.
    pub canonical: bool,
}

impl Service {
    /// Whether clients are restricted to endpoints on their own node (`internalTrafficPolicy:
    /// Local`).
    pub fn is_node_local(&self) -> bool {
        let LoadBalancing { mode, routing_preference, .. } = &self.load_balancing;
        *mode == LoadBalancingMode::Strict && routing_preference[..] == [LoadBalancingScope::Node]
    }

    /// `namespace/hostname`, the xDS resource name and the key of [`crate::Workload::services`].
    pub fn key(&self) -> NamespacedName {
        NamespacedName { namespace: self.namespace.clone(), name: self.hostname.clone() }
    }
}
