//! Encoding of `istio.workload.Service`.
//!
//! Invariant: a decoded service has a namespace and a hostname, so that workloads can reference it.

use ambit_model::{
    HealthPolicy, LoadBalancing, LoadBalancingMode, LoadBalancingScope, NetworkAddress, Service, ServicePort,
    Spiffe,
};
use ambit_proto::workload as wire;
use wire::load_balancing as balancing;

use crate::{
    DecodeError,
    field::{self, Invalid},
};

/// Extension for client IP affinity, for which Istio's message has no field.
const BY_CLIENT: &str = "ambit.dev/session-affinity-client-ip";

/// Encodes a service.
pub fn encode_service(service: &Service) -> wire::Service {
    let port = |port: &ServicePort| wire::Port {
        service_port: port.port.into(),
        target_port: port.target_port.into(),
        app_protocol: 0,
    };
    wire::Service {
        name: service.name.to_string(),
        namespace: service.namespace.to_string(),
        hostname: service.hostname.to_string(),
        addresses: service.addresses.iter().map(field::network_address_message).collect(),
        ports: service.ports.iter().map(port).collect(),
        subject_alt_names: service.subject_alt_names.iter().map(ToString::to_string).collect(),
        waypoint: service.waypoint.as_ref().map(field::gateway_message),
        load_balancing: (LoadBalancing { by_client: false, ..service.load_balancing.clone() }
            != LoadBalancing::default())
        .then(|| encode_balancing(&service.load_balancing)),
        ip_families: families(service).into(),
        extensions: extensions(&service.load_balancing),
        canonical: service.canonical,
        ingress_use_waypoint: false,
    }
}

/// The address families of a service; a headless service has those of its endpoints.
fn families(service: &Service) -> wire::IpFamilies {
    let is_v4 = |address: &NetworkAddress| address.address.to_canonical().is_ipv4();
    let (v4, v6) = (service.addresses.iter().any(is_v4), service.addresses.iter().any(|a| !is_v4(a)));
    match (v4, v6) {
        (false, false) => wire::IpFamilies::Automatic,
        (true, false) => wire::IpFamilies::Ipv4Only,
        (false, true) => wire::IpFamilies::Ipv6Only,
        (true, true) => wire::IpFamilies::Dual,
    }
}

/// Decodes a service.
///
/// # Errors
/// The invalid field.
pub fn decode_service(message: wire::Service) -> Result<Service, DecodeError> {
    let name = format!("{}/{}", message.namespace, message.hostname);
    decode(message).map_err(|invalid| invalid.of(&name))
}

fn decode(message: wire::Service) -> Result<Service, Invalid> {
    Ok(Service {
        name: message.name.into(),
        namespace: field::required("namespace", message.namespace)?,
        hostname: field::required("hostname", message.hostname)?,
        addresses: message
            .addresses
            .into_iter()
            .map(|address| field::network_address("addresses", address))
            .collect::<Result<_, _>>()?,
        ports: message.ports.into_iter().map(decode_port).collect::<Result<_, _>>()?,
        subject_alt_names: message
            .subject_alt_names
            .into_iter()
            .map(decode_subject)
            .collect::<Result<_, _>>()?,
        waypoint: message.waypoint.map(|gateway| field::gateway("waypoint", gateway)).transpose()?,
        load_balancing: LoadBalancing {
            by_client: message.extensions.iter().any(|extension| extension.name == BY_CLIENT),
            ..message.load_balancing.map(decode_balancing).transpose()?.unwrap_or_default()
        },
        canonical: message.canonical,
    })
}

/// 0 is a named port, whose number each endpoint defines.
fn decode_port(port: wire::Port) -> Result<ServicePort, Invalid> {
    let target_port = match port.target_port {
        0 => 0,
        target => field::port("ports", target)?,
    };
    Ok(ServicePort { port: field::port("ports", port.service_port)?, target_port })
}

fn decode_subject(text: String) -> Result<std::sync::Arc<str>, Invalid> {
    match text.parse::<Spiffe>() {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(Invalid::new("subject_alt_names", error.to_string())),
    }
}

fn extensions(of: &LoadBalancing) -> Vec<wire::Extension> {
    of.by_client.then(|| wire::Extension { name: BY_CLIENT.to_owned(), config: None }).into_iter().collect()
}

fn encode_balancing(of: &LoadBalancing) -> wire::LoadBalancing {
    let scope = |scope: &LoadBalancingScope| {
        i32::from(match scope {
            LoadBalancingScope::Region => balancing::Scope::Region,
            LoadBalancingScope::Zone => balancing::Scope::Zone,
            LoadBalancingScope::Subzone => balancing::Scope::Subzone,
            LoadBalancingScope::Node => balancing::Scope::Node,
            LoadBalancingScope::Cluster => balancing::Scope::Cluster,
            LoadBalancingScope::Network => balancing::Scope::Network,
        })
    };
    wire::LoadBalancing {
        routing_preference: of.routing_preference.iter().map(scope).collect(),
        mode: match of.mode {
            LoadBalancingMode::Standard => balancing::Mode::UnspecifiedMode,
            LoadBalancingMode::Strict => balancing::Mode::Strict,
            LoadBalancingMode::Failover => balancing::Mode::Failover,
            LoadBalancingMode::Passthrough => balancing::Mode::Passthrough,
        }
        .into(),
        health_policy: match of.health_policy {
            HealthPolicy::OnlyHealthy => balancing::HealthPolicy::OnlyHealthy,
            HealthPolicy::AllowAll => balancing::HealthPolicy::AllowAll,
        }
        .into(),
    }
}

fn decode_balancing(of: wire::LoadBalancing) -> Result<LoadBalancing, Invalid> {
    let scope = |number: i32| match field::enumeration("routing_preference", number)? {
        balancing::Scope::UnspecifiedScope => {
            Err(Invalid::new("routing_preference", "holds an unspecified scope"))
        }
        balancing::Scope::Region => Ok(LoadBalancingScope::Region),
        balancing::Scope::Zone => Ok(LoadBalancingScope::Zone),
        balancing::Scope::Subzone => Ok(LoadBalancingScope::Subzone),
        balancing::Scope::Node => Ok(LoadBalancingScope::Node),
        balancing::Scope::Cluster => Ok(LoadBalancingScope::Cluster),
        balancing::Scope::Network => Ok(LoadBalancingScope::Network),
    };
    Ok(LoadBalancing {
        routing_preference: of.routing_preference.into_iter().map(scope).collect::<Result<_, _>>()?,
        mode: match field::enumeration("mode", of.mode)? {
            balancing::Mode::UnspecifiedMode => LoadBalancingMode::Standard,
            balancing::Mode::Strict => LoadBalancingMode::Strict,
            balancing::Mode::Failover => LoadBalancingMode::Failover,
            balancing::Mode::Passthrough => LoadBalancingMode::Passthrough,
        },
        health_policy: match field::enumeration("health_policy", of.health_policy)? {
            balancing::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            balancing::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        },
        by_client: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_of_a_service_are_those_of_its_addresses() {
        for (addresses, expected) in [
            (vec![], wire::IpFamilies::Automatic),
            (vec!["10.96.0.1"], wire::IpFamilies::Ipv4Only),
            (vec!["::ffff:10.96.0.1"], wire::IpFamilies::Ipv4Only),
            (vec!["fd00::1"], wire::IpFamilies::Ipv6Only),
            (vec!["10.96.0.1", "fd00::1"], wire::IpFamilies::Dual),
        ] {
            let address = |ip: &&str| NetworkAddress { network: "".into(), address: ip.parse().unwrap() };
            let service =
                Service { addresses: addresses.iter().map(address).collect(), ..Service::default() };
            assert_eq!(encode_service(&service).ip_families(), expected, "{addresses:?}");
        }
    }
}
