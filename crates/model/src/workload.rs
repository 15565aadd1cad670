//! What a workload is: one pod (or other endpoint) as every proxy of the mesh sees it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::Spiffe;

/// `namespace/name`: of a service (`name` is then its FQDN hostname), a policy or any other named object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// Kubernetes namespace, or empty for "mesh-wide".
    pub namespace: Arc<str>,
    /// Object name, or a hostname.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// Joins the two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An address within a named network; the empty network is the cluster's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkAddress {
    /// Network id.
    pub network: Arc<str>,
    /// Address in it.
    pub address: IpAddr,
}

/// Whether peers tunnel to this workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// Plain TCP to the pod.
    #[default]
    None,
    /// HBONE on [`crate::HBONE_PORT`].
    Hbone,
}

/// What kind of controller owns the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// Deployment or the like.
    #[default]
    Deployment,
    /// CronJob.
    CronJob,
    /// Bare pod.
    Pod,
    /// Job.
    Job,
}

/// Whether the workload takes traffic addressed to its services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready, or being deleted.
    Unhealthy,
}

/// How the workload's address relates to its node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// The address is the workload's own.
    #[default]
    Standard,
    /// The address is the node's: never looked up by address.
    HostNetwork,
}

/// Topology of a workload, empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// `topology.kubernetes.io/region`
    pub region: Arc<str>,
    /// `topology.kubernetes.io/zone`
    pub zone: Arc<str>,
    /// `topology.istio.io/subzone`
    pub subzone: Arc<str>,
}

/// Where a gateway (waypoint) is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// A service by name.
    Hostname(NamespacedName),
    /// An address.
    Address(NetworkAddress),
}

/// A gateway (waypoint) and its HBONE port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// Where it is.
    pub destination: GatewayDestination,
    /// TCP port on which it terminates HBONE.
    pub hbone_mtls_port: u16,
}

/// One service port as this workload serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// Port of the service.
    pub service_port: u16,
    /// Port on the workload.
    pub target_port: u16,
}

/// One endpoint of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// `<cluster>//Pod/<namespace>/<name>`, the xDS resource name.
    pub uid: Arc<str>,
    /// Pod name.
    pub name: Arc<str>,
    /// Pod namespace.
    pub namespace: Arc<str>,
    /// Pod addresses, most preferred first.
    pub addresses: Vec<IpAddr>,
    /// Network the addresses are in.
    pub network: Arc<str>,
    /// Whether peers tunnel to it.
    pub tunnel_protocol: TunnelProtocol,
    /// Trust domain of its identity; never empty after decoding.
    pub trust_domain: Arc<str>,
    /// Service account; never empty after decoding.
    pub service_account: Arc<str>,
    /// Waypoint for traffic addressed to the workload itself.
    pub waypoint: Option<GatewayAddress>,
    /// Node it runs on.
    pub node: Arc<str>,
    /// `service.istio.io/canonical-name`, or derived.
    pub canonical_name: Arc<str>,
    /// `service.istio.io/canonical-revision`, or derived.
    pub canonical_revision: Arc<str>,
    /// Kind of its controller.
    pub kind: WorkloadKind,
    /// Name of its controller.
    pub workload_name: Arc<str>,
    /// The application speaks HBONE itself.
    pub native_tunnel: bool,
    /// Services it is an endpoint of, and its ports for each. Key: `namespace/hostname`.
    pub services: BTreeMap<NamespacedName, Vec<PortMapping>>,
    /// Selector policies that apply to it (`namespace/name`). One that a proxy does not know denies.
    pub authorization_policies: Vec<NamespacedName>,
    /// Whether it takes service traffic.
    pub health: Health,
    /// Cluster it is in.
    pub cluster_id: Arc<str>,
    /// Topology.
    pub locality: Locality,
    /// Whether its address is its node's.
    pub network_mode: NetworkMode,
    /// Load-balancing weight; 0 takes no traffic.
    pub capacity: u32,
}

/// What stands before the name of a policy that lets nobody but waypoints reach a workload.
pub const GUARD_PREFIX: &str = "ambit-waypoint-";

impl Workload {
    /// Whether only waypoints may reach it.
    pub fn is_guarded(&self) -> bool {
        self.authorization_policies.iter().any(|policy| policy.name.starts_with(GUARD_PREFIX))
    }

    /// The identity its certificate must carry.
    pub fn identity(&self) -> Spiffe {
        Spiffe {
            trust_domain: self.trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }

    /// The port that serves `port` of `service` here, if the workload names it.
    pub fn target_port(&self, service: &NamespacedName, port: u16) -> Option<u16> {
        self.services.get(service)?.iter().find(|p| p.service_port == port).map(|p| p.target_port)
    }

    /// Where peers reach its HBONE listener.
    pub fn hbone_address(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, crate::HBONE_PORT)
    }
}
