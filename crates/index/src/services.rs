//! Services: virtual addresses, ports, load balancing, and the mapping of service ports to pod
//! ports.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::labels;
use ambit_model::{
    AppProtocol, HealthPolicy, LoadBalancing, LoadBalancingMode, LoadBalancingScope, NamespacedName,
    NetworkAddress, PortMapping, Service, ServicePort,
};
use k8s_openapi::{
    api::core::v1::{Service as KubeService, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use crate::{
    object::{annotation, label, name_of},
    settings::Settings,
    waypoints::binding::WaypointLabel,
};

/// The target port of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetPort {
    /// The same number on every pod.
    Number(u16),
    /// A named port of each pod.
    Name(String),
}

/// One TCP port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortFacts {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
    pub(crate) protocol: AppProtocol,
}

/// The facts about a service that the model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    pub(crate) name: NamespacedName,
    /// Empty for a service whose EndpointSlices are maintained by others.
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<PortFacts>,
    /// The waypoint that its labels request.
    pub(crate) waypoint_label: WaypointLabel,
    /// It was created for a Gateway.
    pub(crate) is_managed: bool,
    /// Its load balancing settings.
    pub(crate) balancing: Balancing,
    pub(crate) model: Arc<Service>,
}

impl ServiceFacts {
    /// Parses a service; `None` for ExternalName, which is only a DNS alias.
    pub(crate) fn read(service: &KubeService, settings: &Settings) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let name = name_of(&service.metadata);
        let ports = ports(spec);
        let balancing = Balancing::read(&service.metadata, spec);
        let model = Arc::new(Service {
            name: name.name.clone(),
            namespace: name.namespace.clone(),
            hostname: format!("{}.{}.svc.{}", name.name, name.namespace, settings.cluster_domain).into(),
            addresses: addresses(spec),
            ports: ports.iter().map(service_port).collect(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            load_balancing: balancing.settle(None),
            canonical: true,
        });
        Some(Self {
            selector: spec.selector.clone().unwrap_or_default(),
            waypoint_label: WaypointLabel::read(service.metadata.labels.as_ref(), &name.namespace),
            is_managed: label(&service.metadata, labels::GATEWAY_MANAGED).is_some(),
            name,
            ports,
            balancing,
            model,
        })
    }

    /// Applies the load balancing setting of the namespace. Returns whether anything changed.
    pub(crate) fn balance(&mut self, of_namespace: Option<Distribution>) -> bool {
        let load_balancing = self.balancing.settle(of_namespace);
        let is_news = self.model.load_balancing != load_balancing;
        if is_news {
            Arc::make_mut(&mut self.model).load_balancing = load_balancing;
        }
        is_news
    }

    /// The pod's ports for this service; a named port that the pod does not have is omitted.
    pub(crate) fn mapping(&self, named_ports: &BTreeMap<String, u16>) -> Vec<PortMapping> {
        let target = |port: &PortFacts| match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => named_ports.get(name).copied(),
        };
        self.ports
            .iter()
            .filter_map(|port| Some(PortMapping { service_port: port.port, target_port: target(port)? }))
            .collect()
    }
}

fn ports(spec: &ServiceSpec) -> Vec<PortFacts> {
    let tcp = spec.ports.iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"));
    tcp.filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        let target = match &port.target_port {
            None => TargetPort::Number(number),
            Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => TargetPort::Number(u16::try_from(*target).ok()?),
            Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
        };
        let name = port.name.clone().unwrap_or_default();
        let protocol = protocol(port.app_protocol.as_deref(), &name, number);
        Some(PortFacts { name, port: number, target, protocol })
    })
    .collect()
}

/// The protocol of a port: its appProtocol, otherwise the first part of its name, otherwise its
/// number, as in Istio.
fn protocol(app_protocol: Option<&str>, name: &str, number: u16) -> AppProtocol {
    let prefix = name.split('-').next().unwrap_or_default();
    let is_grpc_web = name == "grpc-web" || name.starts_with("grpc-web-");
    let named = if is_grpc_web { "grpc-web" } else { prefix };
    let said = app_protocol.and_then(known_protocol).or_else(|| known_protocol(named));
    said.unwrap_or_else(|| AppProtocol::of_port(number))
}

fn known_protocol(word: &str) -> Option<AppProtocol> {
    Some(match word.to_ascii_lowercase().as_str() {
        "http" | "grpc-web" | "kubernetes.io/ws" => AppProtocol::Http,
        "http2" | "h2c" | "grpc" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "https" | "tls" | "kubernetes.io/wss" => AppProtocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => AppProtocol::Tcp,
        _ => return None,
    })
}

fn service_port(port: &PortFacts) -> ServicePort {
    let target_port = match &port.target {
        TargetPort::Number(number) => *number,
        TargetPort::Name(_) => 0,
    };
    ServicePort { port: port.port, target_port }
}

/// Virtual addresses; empty for a headless service.
fn addresses(spec: &ServiceSpec) -> Vec<NetworkAddress> {
    let all = spec.cluster_ips.iter().flatten().map(String::as_str).chain(spec.cluster_ip.as_deref());
    let mut addresses: Vec<NetworkAddress> = Vec::new();
    for address in all.filter_map(|ip| ip.parse().ok()) {
        if !addresses.iter().any(|known| known.address == address) {
            addresses.push(NetworkAddress { network: "".into(), address });
        }
    }
    addresses
}

/// The load balancing settings of a Service, before those of its namespace are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balancing {
    /// `internalTrafficPolicy: Local`
    is_local: bool,
    /// `spec.trafficDistribution`, otherwise the Service's annotation.
    distribution: Option<Distribution>,
    health_policy: HealthPolicy,
    /// `sessionAffinity: ClientIP`
    pub(crate) by_client: bool,
}

/// Topology preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// No preference.
    Any,
    /// The nearest endpoints, down to the subzone.
    Close,
    /// Endpoints in the client's zone.
    Zone,
    /// Endpoints on the client's node, otherwise the nearest.
    Node,
}

impl Distribution {
    /// Values of Kubernetes and Istio; `None` for unknown ones.
    fn read(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "any" => Self::Any,
            "preferclose" => Self::Close,
            "prefersamezone" => Self::Zone,
            "prefersamenode" => Self::Node,
            _ => return None,
        })
    }

    /// The value of the annotation on a Service or namespace.
    pub(crate) fn annotated(metadata: &ObjectMeta) -> Option<Self> {
        annotation(metadata, labels::TRAFFIC_DISTRIBUTION).and_then(Self::read)
    }
}

impl Balancing {
    fn read(metadata: &ObjectMeta, spec: &ServiceSpec) -> Self {
        let field = spec.traffic_distribution.as_deref().and_then(Distribution::read);
        let unready = spec.publish_not_ready_addresses.unwrap_or_default();
        Self {
            is_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            distribution: field.or_else(|| Distribution::annotated(metadata)),
            health_policy: if unready { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy },
            by_client: spec.session_affinity.as_deref() == Some("ClientIP"),
        }
    }

    /// The effective settings; `of_namespace` applies where the Service sets nothing.
    fn settle(&self, of_namespace: Option<Distribution>) -> LoadBalancing {
        use LoadBalancingScope::{Network, Node, Region, Subzone, Zone};
        let nearest = |scopes: &[LoadBalancingScope]| (LoadBalancingMode::Failover, scopes.to_vec());
        let (mode, routing_preference) = match self.distribution.or(of_namespace) {
            _ if self.is_local => (LoadBalancingMode::Strict, vec![Node]),
            None | Some(Distribution::Any) => (LoadBalancingMode::Standard, Vec::new()),
            Some(Distribution::Close) => nearest(&[Network, Region, Zone, Subzone]),
            Some(Distribution::Zone) => nearest(&[Network, Region, Zone]),
            Some(Distribution::Node) => nearest(&[Network, Region, Zone, Subzone, Node]),
        };
        let Self { health_policy, by_client, .. } = *self;
        LoadBalancing { routing_preference, mode, health_policy, by_client }
    }
}
