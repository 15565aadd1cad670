//! The containers of a pod that keep running.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Containers, and sidecar containers (init containers that keep running).
pub(super) fn running(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c: &&Container| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}

/// Ports of containers and sidecar containers.
pub(super) fn named_ports(spec: &PodSpec) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    for container in running(spec) {
        for port in container.ports.iter().flatten() {
            let is_tcp = port.protocol.as_deref().is_none_or(|p| p == "TCP");
            if let (Some(name), Ok(number), true) = (&port.name, u16::try_from(port.container_port), is_tcp) {
                ports.entry(name.clone()).or_insert(number);
            }
        }
    }
    ports
}
