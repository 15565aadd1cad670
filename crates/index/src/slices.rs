//! EndpointSlices of services without selector.
//!
//! Invariant: an endpoint is a pod of the slice's own namespace only if it has one of that pod's
//! addresses. A slice cannot change anything about a pod of another namespace; such an address is
//! reached like the pod that has it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ambit_model::{Health, NamespacedName, NetworkMode, PortMapping, Workload};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::{
    object::{label, name_of},
    services::ServiceFacts,
    settings::Settings,
};

/// Label with the name of the slice's service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The facts about a slice that the model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceFacts {
    pub(crate) name: NamespacedName,
    pub(crate) service: NamespacedName,
    /// Port numbers by name.
    ports: BTreeMap<String, u16>,
    pub(crate) endpoints: Vec<EndpointFacts>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointFacts {
    pub(crate) addresses: Vec<IpAddr>,
    /// The referenced pod, in the slice's own namespace.
    pub(crate) pod: Option<NamespacedName>,
    node: Arc<str>,
    health: Health,
}

/// One address of an endpoint that a slice lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) endpoint: &'a EndpointFacts,
    pub(crate) address: IpAddr,
}

impl SliceFacts {
    /// Parses a slice; `None` if it has no service, or its endpoints are DNS names.
    pub(crate) fn read(slice: &EndpointSlice) -> Option<Self> {
        let name = name_of(&slice.metadata);
        let service = NamespacedName::new(name.namespace.clone(), label(&slice.metadata, SERVICE_NAME)?);
        let tcp =
            slice.ports.iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"));
        let ports = tcp
            .filter_map(|port| Some((port.name.clone().unwrap_or_default(), u16::try_from(port.port?).ok()?)))
            .collect();
        let endpoints = slice.endpoints.iter().flatten();
        let endpoints = endpoints.map(|found| endpoint(found, &name.namespace)).collect();
        Some(Self { name, service, ports, endpoints })
    }

    /// All addresses in the slice.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().copied())
    }

    /// The ports of its endpoints for its service.
    pub(crate) fn mapping(&self, service: &ServiceFacts) -> Vec<PortMapping> {
        let target = |name: &str| self.ports.get(name).copied();
        service
            .ports
            .iter()
            .filter_map(|p| Some(PortMapping { service_port: p.port, target_port: target(&p.name)? }))
            .collect()
    }

    /// Whether its endpoints have this port.
    pub(crate) fn leads_to(&self, port: u16) -> bool {
        self.ports.values().any(|own| *own == port)
    }

    /// A workload for an address that is not a pod of this namespace. If `pod` has the address, the
    /// workload's tunnel and expected identity are the pod's; otherwise it is reached as plain TCP.
    pub(crate) fn workload(
        &self,
        Listed { endpoint, address }: Listed<'_>,
        pod: Option<&Workload>,
        service: &ServiceFacts,
        settings: &Settings,
    ) -> Workload {
        let unknown = || Workload {
            name: self.name.name.clone(),
            namespace: self.name.namespace.clone(),
            trust_domain: settings.trust_domain.clone(),
            service_account: "default".into(),
            node: endpoint.node.clone(),
            canonical_name: self.service.name.clone(),
            canonical_revision: "latest".into(),
            workload_name: self.service.name.clone(),
            cluster_id: settings.cluster_id.clone(),
            capacity: 1,
            ..Workload::default()
        };
        Workload {
            uid: format!(
                "{}/discovery.k8s.io/EndpointSlice/{}/{}/{address}",
                settings.cluster_id, self.name.namespace, self.name.name
            )
            .into(),
            addresses: vec![address],
            services: BTreeMap::from([(service.model.key(), self.mapping(service))]),
            // Policies for connections apply to the pod itself.
            authorization_policies: Vec::new(),
            health: endpoint.health,
            // Such workloads must not be found by address.
            network_mode: NetworkMode::HostNetwork,
            ..pod.cloned().unwrap_or_else(unknown)
        }
    }
}

fn endpoint(endpoint: &Endpoint, namespace: &Arc<str>) -> EndpointFacts {
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let own = target.filter(|target| target.namespace.as_deref().is_none_or(|of| *of == **namespace));
    let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    EndpointFacts {
        addresses: endpoint.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        pod: own.and_then(|own| Some(NamespacedName::new(namespace.clone(), own.name.as_deref()?))),
        node: endpoint.node_name.as_deref().unwrap_or_default().into(),
        health: if ready { Health::Healthy } else { Health::Unhealthy },
    }
}
