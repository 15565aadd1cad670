//! EndpointSlices of services without selector: which pods serve them, and endpoints that are no pods at all (the
//! API server's own, for one).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ambit_model::{Health, NamespacedName, NetworkMode, PortMapping, Workload};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::{
    object::{label, name_of},
    services::ServiceFacts,
    settings::Settings,
};

/// Label that names the service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What the model needs of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceFacts {
    pub(crate) name: NamespacedName,
    pub(crate) service: NamespacedName,
    /// Port number by port name.
    ports: BTreeMap<String, u16>,
    pub(crate) pods: Vec<NamespacedName>,
    others: Vec<Other>,
}

/// An endpoint that is not a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Other {
    address: IpAddr,
    node: Arc<str>,
    health: Health,
}

impl SliceFacts {
    /// Reads a slice; one that names no service, or whose endpoints are DNS names, is not one of ours.
    pub(crate) fn read(slice: &EndpointSlice) -> Option<Self> {
        let name = name_of(&slice.metadata);
        let service = NamespacedName::new(name.namespace.clone(), label(&slice.metadata, SERVICE_NAME)?);
        let tcp =
            slice.ports.iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"));
        let ports = tcp
            .filter_map(|port| Some((port.name.clone().unwrap_or_default(), u16::try_from(port.port?).ok()?)))
            .collect();
        let (mut pods, mut others) = (Vec::new(), Vec::new());
        for endpoint in slice.endpoints.iter().flatten() {
            match pod_of(endpoint, &name.namespace) {
                Some(pod) => pods.push(pod),
                None => others.extend(others_of(endpoint)),
            }
        }
        Some(Self { name, service, ports, pods, others })
    }

    /// The ports of an endpoint of this slice for its service.
    pub(crate) fn mapping(&self, service: &ServiceFacts) -> Vec<PortMapping> {
        let target = |name: &str| self.ports.get(name).copied();
        service
            .ports
            .iter()
            .filter_map(|p| Some(PortMapping { service_port: p.port, target_port: target(&p.name)? }))
            .collect()
    }

    /// Endpoints that are no pods, as workloads without identity: reached as they are, never tunnelled to.
    pub(crate) fn workloads(&self, service: &ServiceFacts, settings: &Settings) -> Vec<Workload> {
        let workload = |other: &Other| Workload {
            uid: format!(
                "{}/discovery.k8s.io/EndpointSlice/{}/{}/{}",
                settings.cluster_id, self.name.namespace, self.name.name, other.address
            )
            .into(),
            name: self.name.name.clone(),
            namespace: self.name.namespace.clone(),
            addresses: vec![other.address],
            trust_domain: settings.trust_domain.clone(),
            service_account: "default".into(),
            node: other.node.clone(),
            canonical_name: self.service.name.clone(),
            canonical_revision: "latest".into(),
            workload_name: self.service.name.clone(),
            services: BTreeMap::from([(service.model.key(), self.mapping(service))]),
            health: other.health,
            cluster_id: settings.cluster_id.clone(),
            network_mode: NetworkMode::HostNetwork,
            capacity: 1,
            ..Workload::default()
        };
        self.others.iter().map(workload).collect()
    }
}

fn pod_of(endpoint: &Endpoint, namespace: &Arc<str>) -> Option<NamespacedName> {
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
    let namespace = target.namespace.as_deref().map_or_else(|| namespace.clone(), Arc::from);
    Some(NamespacedName::new(namespace, target.name.as_deref()?))
}

fn others_of(endpoint: &Endpoint) -> Vec<Other> {
    let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    let health = if ready { Health::Healthy } else { Health::Unhealthy };
    let node: Arc<str> = endpoint.node_name.as_deref().unwrap_or_default().into();
    let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
    addresses.map(|address| Other { address, node: node.clone(), health }).collect()
}
