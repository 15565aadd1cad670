//! What a service is: virtual addresses, ports, and how its endpoints are chosen.

use std::sync::Arc;

use crate::{GatewayAddress, NamespacedName, NetworkAddress};

/// One port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Port on the virtual address.
    pub port: u16,
    /// Port on the endpoints; 0 when it is named, and each endpoint says which it is.
    pub target_port: u16,
}

/// A scope that an endpoint may share with the client.
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

/// What the scopes mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LoadBalancingMode {
    /// All endpoints alike.
    #[default]
    Standard,
    /// Only endpoints that share every scope.
    Strict,
    /// The endpoints that share the longest prefix of the scopes.
    Failover,
    /// The original destination, untouched.
    Passthrough,
}

/// Which endpoints count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthPolicy {
    /// Ready ones.
    #[default]
    OnlyHealthy,
    /// All (`publishNotReadyAddresses`).
    AllowAll,
}

/// How endpoints are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadBalancing {
    /// Scopes, most important first.
    pub routing_preference: Vec<LoadBalancingScope>,
    /// What they mean.
    pub mode: LoadBalancingMode,
    /// Which endpoints count.
    pub health_policy: HealthPolicy,
    /// Whether a client stays with an endpoint, by its address (`sessionAffinity: ClientIP`).
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
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// SPIFFE ids its endpoints may also present.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Waypoint for traffic addressed to it.
    pub waypoint: Option<GatewayAddress>,
    /// How endpoints are chosen.
    pub load_balancing: LoadBalancing,
    /// The one definition that wins when several name one host.
    pub canonical: bool,
}

impl Service {
    /// Whether a client is only given endpoints of its own node (`internalTrafficPolicy: Local`).
    pub fn is_node_local(&self) -> bool {
        let LoadBalancing { mode, routing_preference, .. } = &self.load_balancing;
        *mode == LoadBalancingMode::Strict && routing_preference[..] == [LoadBalancingScope::Node]
    }

    /// `namespace/hostname`, the xDS resource name and the key of [`crate::Workload::services`].
    pub fn key(&self) -> NamespacedName {
        NamespacedName { namespace: self.namespace.clone(), name: self.hostname.clone() }
    }
}
