//! Workloads: pods and other endpoints, as every proxy of the mesh sees them.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::Spiffe;

/// `namespace/name` of a service (`name` is then its hostname), a policy or another named object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// Kubernetes namespace; empty for mesh-wide objects.
    pub namespace: Arc<str>,
    /// Object name, or a hostname.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// Builds a name from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An address within a named network; an empty name is the cluster's own network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkAddress {
    /// Network id.
    pub network: Arc<str>,
    /// Address in that network.
    pub address: IpAddr,
}

/// Whether clients must tunnel to this workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// Plain TCP.
    #[default]
    None,
    /// HBONE on [`crate::HBONE_PORT`].
    Hbone,
}

/// What kind of controller owns the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// Deployment, or another kind without a value of its own.
    #[default]
    Deployment,
    /// CronJob.
    CronJob,
    /// Bare pod.
    Pod,
    /// Job.
    Job,
}

/// Whether the workload receives traffic addressed to its services.
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

/// Topology of a workload; unknown parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// `topology.kubernetes.io/region`
    pub region: Arc<str>,
    /// `topology.kubernetes.io/zone`
    pub zone: Arc<str>,
    /// `topology.istio.io/subzone`
    pub subzone: Arc<str>,
}

/// How a gateway (waypoint) is referenced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// By service name.
    Hostname(NamespacedName),
    /// By address.
    Address(NetworkAddress),
}

/// A gateway (waypoint) and its HBONE port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// Service or address of the gateway.
    pub destination: GatewayDestination,
    /// TCP port of its HBONE listener.
    pub hbone_mtls_port: u16,
}

/// How one service port maps to this workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// Port of the service.
    pub service_port: u16,
    /// Port on the workload.
    pub target_port: u16,
}

/// One workload, usually a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// `<cluster>//Pod/<namespace>/<name>`, the xDS resource name.
    pub uid: Arc<str>,
    /// Pod name.
    pub name: Arc<str>,
    /// Pod namespace.
    pub namespace: Arc<str>,
    /// Pod addresses, in order of preference.
    pub addresses: Vec<IpAddr>,
    /// Network of the addresses.
    pub network: Arc<str>,
    /// Whether clients must tunnel to it.
    pub tunnel_protocol: TunnelProtocol,
    /// Trust domain of its identity; never empty after decoding.
    pub trust_domain: Arc<str>,
    /// Service account; never empty after decoding.
    pub service_account: Arc<str>,
    /// Waypoint for traffic addressed to the workload itself.
    pub waypoint: Option<GatewayAddress>,
    /// Node it runs on.
    pub node: Arc<str>,
    /// Label `service.istio.io/canonical-name`, or a derived name.
    pub canonical_name: Arc<str>,
    /// Label `service.istio.io/canonical-revision`, or a derived revision.
    pub canonical_revision: Arc<str>,
    /// Kind of its controller.
    pub kind: WorkloadKind,
    /// Name of its controller.
    pub workload_name: Arc<str>,
    /// The application itself terminates HBONE.
    pub native_tunnel: bool,
    /// The services it is an endpoint of, with its ports for each. Key: `namespace/hostname`.
    pub services: BTreeMap<NamespacedName, Vec<PortMapping>>,
    /// Policies with a selector that apply to it (`namespace/name`). A proxy that has not received
    /// one of them denies.
    pub authorization_policies: Vec<NamespacedName>,
    /// Whether it receives traffic addressed to its services.
    pub health: Health,
    /// Cluster it is in.
    pub cluster_id: Arc<str>,
    /// Topology.
    pub locality: Locality,
    /// Whether it shares its node's address.
    pub network_mode: NetworkMode,
    /// Load balancing weight; 0 receives no traffic.
    pub capacity: u32,
}

/// Name prefix of the policies that admit only waypoints to a workload.
pub const GUARD_PREFIX: &str = "ambit-waypoint-";

impl Workload {
    /// Whether only waypoints may connect to it.
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

    /// Its port for `port` of `service`, if the workload maps it.
    pub fn target_port(&self, service: &NamespacedName, port: u16) -> Option<u16> {
        self.services.get(service)?.iter().find(|p| p.service_port == port).map(|p| p.target_port)
    }

    /// The address of its HBONE listener.
    pub fn hbone_address(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, crate::HBONE_PORT)
    }
}
