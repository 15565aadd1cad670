//! Services: virtual addresses, ports, load balancing, and which port of a pod serves which port of a service.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::labels;
use ambit_model::{
    AppProtocol, HealthPolicy, LoadBalancing, LoadBalancingMode, LoadBalancingScope, NamespacedName,
    NetworkAddress, PortMapping, Service, ServicePort,
};
use k8s_openapi::{
    api::core::v1::{Service as KubeService, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{
    object::{label, name_of},
    settings::Settings,
    waypoints::binding::Wish,
};

/// Where a service port leads on an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The same number everywhere.
    Number(u16),
    /// What each pod calls by this name.
    Name(String),
}

/// One TCP port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortFacts {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: Target,
    pub(crate) protocol: AppProtocol,
}

/// What the model needs of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    pub(crate) name: NamespacedName,
    /// Empty for a service whose endpoints someone else writes.
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<PortFacts>,
    /// What its labels ask for.
    pub(crate) wish: Wish,
    /// It is made for a Gateway.
    pub(crate) is_managed: bool,
    pub(crate) model: Arc<Service>,
}

impl ServiceFacts {
    /// Reads a service; an ExternalName service is a DNS alias and not one of ours.
    pub(crate) fn read(service: &KubeService, settings: &Settings) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let name = name_of(&service.metadata);
        let ports = ports(spec);
        let model = Arc::new(Service {
            name: name.name.clone(),
            namespace: name.namespace.clone(),
            hostname: format!("{}.{}.svc.{}", name.name, name.namespace, settings.cluster_domain).into(),
            addresses: addresses(spec),
            ports: ports.iter().map(service_port).collect(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            load_balancing: load_balancing(spec),
            canonical: true,
        });
        Some(Self {
            selector: spec.selector.clone().unwrap_or_default(),
            wish: Wish::read(service.metadata.labels.as_ref(), &name.namespace),
            is_managed: label(&service.metadata, labels::GATEWAY_MANAGED).is_some(),
            name,
            ports,
            model,
        })
    }

    /// The ports of a pod for this service; a named port that the pod does not have is left out.
    pub(crate) fn mapping(&self, named_ports: &BTreeMap<String, u16>) -> Vec<PortMapping> {
        let target = |port: &PortFacts| match &port.target {
            Target::Number(number) => Some(*number),
            Target::Name(name) => named_ports.get(name).copied(),
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
            None => Target::Number(number),
            Some(IntOrString::Int(0)) => Target::Number(number),
            Some(IntOrString::Int(target)) => Target::Number(u16::try_from(*target).ok()?),
            Some(IntOrString::String(name)) => Target::Name(name.clone()),
        };
        let name = port.name.clone().unwrap_or_default();
        let protocol = protocol(port.app_protocol.as_deref(), &name, number);
        Some(PortFacts { name, port: number, target, protocol })
    })
    .collect()
}

/// What a port speaks: its appProtocol, else the first part of its name, else its number, as Istio reads them.
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
        Target::Number(number) => *number,
        Target::Name(_) => 0,
    };
    ServicePort { port: port.port, target_port }
}

/// Virtual addresses; `None` (headless) is not an address.
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

fn load_balancing(spec: &ServiceSpec) -> LoadBalancing {
    use LoadBalancingScope::{Network, Node, Region, Subzone, Zone};
    let (mode, routing_preference) =
        match (spec.internal_traffic_policy.as_deref(), spec.traffic_distribution.as_deref()) {
            (Some("Local"), _) => (LoadBalancingMode::Strict, vec![Node]),
            (_, Some("PreferClose" | "PreferSameZone")) => {
                (LoadBalancingMode::Failover, vec![Network, Region, Zone])
            }
            (_, Some("PreferSameNode")) => {
                (LoadBalancingMode::Failover, vec![Network, Region, Zone, Subzone, Node])
            }
            (_, _) => (LoadBalancingMode::Standard, Vec::new()),
        };
    let health_policy = if spec.publish_not_ready_addresses.unwrap_or_default() {
        HealthPolicy::AllowAll
    } else {
        HealthPolicy::OnlyHealthy
    };
    LoadBalancing { routing_preference, mode, health_policy }
}
