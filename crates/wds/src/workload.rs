//! Encoding of `istio.workload.Workload`.
//!
//! Invariant: a decoded workload has a uid, and an identity that is valid in a certificate.

use std::collections::BTreeMap;

use ambit_model::{
    DEFAULT_TRUST_DOMAIN, Health, Locality, NamespacedName, NetworkMode, PortMapping, Spiffe, TunnelProtocol,
    Workload, WorkloadKind,
};
use ambit_proto::workload as wire;

use crate::{
    DecodeError,
    field::{self, Invalid},
};

const DEFAULT_SERVICE_ACCOUNT: &str = "default";
const DEFAULT_CLUSTER: &str = "Kubernetes";
const DEFAULT_CAPACITY: u32 = 1;

/// Encodes a workload.
pub fn encode_workload(workload: &Workload) -> wire::Workload {
    let trust_domain =
        if &*workload.trust_domain == DEFAULT_TRUST_DOMAIN { "" } else { &workload.trust_domain };
    let ports = |ports: &Vec<PortMapping>| wire::PortList {
        ports: ports
            .iter()
            .map(|port| wire::Port {
                service_port: port.service_port.into(),
                target_port: port.target_port.into(),
                app_protocol: 0,
            })
            .collect(),
    };
    wire::Workload {
        uid: workload.uid.to_string(),
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().map(|ip| field::ip_bytes(*ip)).collect(),
        hostname: String::new(),
        network: workload.network.to_string(),
        tunnel_protocol: match workload.tunnel_protocol {
            TunnelProtocol::None => wire::TunnelProtocol::None,
            TunnelProtocol::Hbone => wire::TunnelProtocol::Hbone,
        }
        .into(),
        trust_domain: trust_domain.to_owned(),
        service_account: workload.service_account.to_string(),
        waypoint: workload.waypoint.as_ref().map(field::gateway_message),
        network_gateway: None,
        node: workload.node.to_string(),
        canonical_name: workload.canonical_name.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        workload_type: match workload.kind {
            WorkloadKind::Deployment => wire::WorkloadType::Deployment,
            WorkloadKind::CronJob => wire::WorkloadType::Cronjob,
            WorkloadKind::Pod => wire::WorkloadType::Pod,
            WorkloadKind::Job => wire::WorkloadType::Job,
        }
        .into(),
        workload_name: workload.workload_name.to_string(),
        native_tunnel: workload.native_tunnel,
        application_tunnel: None,
        services: workload.services.iter().map(|(key, list)| (key.to_string(), ports(list))).collect(),
        authorization_policies: workload.authorization_policies.iter().map(ToString::to_string).collect(),
        status: match workload.health {
            Health::Healthy => wire::WorkloadStatus::Healthy,
            Health::Unhealthy => wire::WorkloadStatus::Unhealthy,
        }
        .into(),
        cluster_id: workload.cluster_id.to_string(),
        locality: (workload.locality != Locality::default()).then(|| wire::Locality {
            region: workload.locality.region.to_string(),
            zone: workload.locality.zone.to_string(),
            subzone: workload.locality.subzone.to_string(),
        }),
        network_mode: match workload.network_mode {
            NetworkMode::Standard => wire::NetworkMode::Standard,
            NetworkMode::HostNetwork => wire::NetworkMode::HostNetwork,
        }
        .into(),
        extensions: Vec::new(),
        capacity: (workload.capacity != DEFAULT_CAPACITY).then_some(workload.capacity),
    }
}

/// The workload of a message.
///
/// # Errors
/// The field that does not fit.
pub fn decode_workload(message: wire::Workload) -> Result<Workload, DecodeError> {
    let name = message.uid.clone();
    decode(message).map_err(|invalid| invalid.of(&name))
}

fn decode(message: wire::Workload) -> Result<Workload, Invalid> {
    // The application would take the client's first bytes for a header of ours, and believe them.
    if message.application_tunnel.is_some_and(|tunnel| tunnel != wire::ApplicationTunnel::default()) {
        return Err(Invalid::new("application_tunnel", "is not supported"));
    }
    let workload = Workload {
        uid: field::required("uid", message.uid)?,
        name: message.name.into(),
        namespace: message.namespace.into(),
        addresses: message
            .addresses
            .iter()
            .map(|bytes| field::ip("addresses", bytes))
            .collect::<Result<_, _>>()?,
        network: message.network.into(),
        tunnel_protocol: tunnel_protocol(message.tunnel_protocol)?,
        trust_domain: field::or_default(message.trust_domain, DEFAULT_TRUST_DOMAIN),
        service_account: field::or_default(message.service_account, DEFAULT_SERVICE_ACCOUNT),
        waypoint: message.waypoint.map(|gateway| field::gateway("waypoint", gateway)).transpose()?,
        node: message.node.into(),
        canonical_name: message.canonical_name.into(),
        canonical_revision: message.canonical_revision.into(),
        kind: match field::enumeration("workload_type", message.workload_type)? {
            wire::WorkloadType::Deployment => WorkloadKind::Deployment,
            wire::WorkloadType::Cronjob => WorkloadKind::CronJob,
            wire::WorkloadType::Pod => WorkloadKind::Pod,
            wire::WorkloadType::Job => WorkloadKind::Job,
        },
        workload_name: message.workload_name.into(),
        native_tunnel: message.native_tunnel,
        services: services(message.services)?,
        authorization_policies: message
            .authorization_policies
            .iter()
            .map(|name| field::key("authorization_policies", name))
            .collect::<Result<_, _>>()?,
        health: match field::enumeration("status", message.status)? {
            wire::WorkloadStatus::Healthy => Health::Healthy,
            wire::WorkloadStatus::Unhealthy => Health::Unhealthy,
        },
        cluster_id: field::or_default(message.cluster_id, DEFAULT_CLUSTER),
        locality: message
            .locality
            .map(|l| Locality { region: l.region.into(), zone: l.zone.into(), subzone: l.subzone.into() })
            .unwrap_or_default(),
        network_mode: match field::enumeration("network_mode", message.network_mode)? {
            wire::NetworkMode::Standard => NetworkMode::Standard,
            wire::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
        },
        capacity: message.capacity.unwrap_or(DEFAULT_CAPACITY),
    };
    // Parts that no certificate can carry could be confused with others.
    let identity = workload.identity().to_string();
    identity.parse::<Spiffe>().map_err(|error| Invalid::new("service_account", error.to_string()))?;
    Ok(workload)
}

fn tunnel_protocol(number: i32) -> Result<TunnelProtocol, Invalid> {
    match field::enumeration("tunnel_protocol", number)? {
        wire::TunnelProtocol::None => Ok(TunnelProtocol::None),
        wire::TunnelProtocol::Hbone => Ok(TunnelProtocol::Hbone),
        wire::TunnelProtocol::LegacyIstioMtls => {
            Err(Invalid::new("tunnel_protocol", "LEGACY_ISTIO_MTLS is not supported"))
        }
    }
}

fn services(
    lists: impl IntoIterator<Item = (String, wire::PortList)>,
) -> Result<BTreeMap<NamespacedName, Vec<PortMapping>>, Invalid> {
    let mapping = |port: wire::Port| {
        Ok(PortMapping {
            service_port: field::port("services", port.service_port)?,
            target_port: field::port("services", port.target_port)?,
        })
    };
    lists
        .into_iter()
        .map(|(key, list)| {
            let ports = list.ports.into_iter().map(mapping).collect::<Result<_, _>>()?;
            Ok((field::key("services", &key)?, ports))
        })
        .collect()
}
