//! Encoding of `ambit.waypoint.v1.Service`.
//!
//! Invariant: decoding keeps everything in the message. Anything unknown rejects the whole service,
//! so that a route, limit or policy of a newer control plane is never silently ignored.

mod authentication;
mod authorization;
mod destination;
mod external;
mod matching;
mod route;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ambit_model::{
    Addressed, AppProtocol, BoundPort, BoundService, Destination, NamespacedName,
    bound::{DestinationSettings, PODS, Routes},
};
use ambit_proto::waypoint as wire;
use prost::Message;

use destination::{decode_destination, decode_name, encode_destination, encode_name};

use crate::{
    DecodeError, Packed,
    field::{self, Invalid, list},
};

/// Encodes an `ambit.waypoint.v1.Service` with resource name `namespace/hostname`.
pub fn pack_bound_service(service: &BoundService) -> Packed {
    Packed { name: service.key.to_string().into(), body: encode(service).encode_to_vec().into() }
}

/// Decodes an `ambit.waypoint.v1.Service` received under `name`.
///
/// # Errors
/// The field that could not be decoded, or a name that does not match the service. The receiver
/// must then refuse the service's traffic.
pub fn unpack_bound_service(name: &str, body: &[u8]) -> Result<BoundService, DecodeError> {
    let read = || {
        let message =
            wire::Service::decode(body).map_err(|error| Invalid::new("resource", error.to_string()))?;
        let service = decode(message)?;
        let own = service.key.to_string();
        if own != name {
            return Err(Invalid::new("resource", format!("is {own:?} inside")));
        }
        Ok(service)
    };
    read().map_err(|invalid: Invalid| invalid.of(name))
}

fn encode(service: &BoundService) -> wire::Service {
    let refused = |(policy, reason): &(NamespacedName, Arc<str>)| wire::Unenforceable {
        policy: Some(encode_name(policy)),
        reason: reason.to_string(),
    };
    wire::Service {
        namespace: service.key.namespace.to_string(),
        hostname: service.key.name.to_string(),
        ports: service.ports.iter().map(encode_port).collect(),
        destinations: service.destinations.iter().map(encode_settings).collect(),
        requests: Some(traffic::encode_requests(&service.requests)),
        authentication: service.authentication.iter().map(authentication::encode_provider).collect(),
        authorization: service
            .authorization
            .iter()
            .map(|policy| authorization::encode_policy(policy))
            .chain(service.checks.iter().map(external::encode_check))
            .collect(),
        unenforceable: service.unenforceable.iter().map(refused).collect(),
        pods: encode_pods(&service.addressed),
    }
}

fn encode_pods(addressed: &Addressed) -> Option<wire::Pods> {
    match addressed {
        Addressed::Service => None,
        Addressed::Pods(uids) => {
            Some(wire::Pods { on_their_way: uids.iter().map(ToString::to_string).collect() })
        }
    }
}

/// Rejects messages that mix pods and services: a waypoint that confuses them would protect
/// neither.
fn decode_pods(message: Option<wire::Pods>, hostname: &str, is_empty: bool) -> Result<Addressed, Invalid> {
    match message {
        None if hostname == PODS => Err(Invalid::new("pods", "is missing, and the hostname is that of pods")),
        None => Ok(Addressed::Service),
        Some(_) if hostname != PODS => {
            Err(Invalid::new("pods", format!("hostname {hostname:?} is not that of pods")))
        }
        Some(_) if !is_empty => Err(Invalid::new("pods", "pods have no ports")),
        Some(pods) => {
            let uid = |uid| field::required("pods.on_their_way", uid);
            Ok(Addressed::Pods(pods.on_their_way.into_iter().map(uid).collect::<Result<BTreeSet<_>, _>>()?))
        }
    }
}

fn decode(message: wire::Service) -> Result<BoundService, Invalid> {
    let is_empty = message.ports.is_empty();
    let addressed = decode_pods(message.pods, &message.hostname, is_empty)?;
    let mut destinations = BTreeMap::new();
    for entry in message.destinations {
        let (destination, settings) = decode_settings(entry)?;
        if destinations.insert(destination, settings).is_some() {
            return Err(Invalid::new("destinations", "names one twice"));
        }
    }
    let refused = |entry: wire::Unenforceable| {
        Ok((decode_name("unenforceable", entry.policy)?, Arc::from(entry.reason)))
    };
    let (checks, policies): (Vec<_>, Vec<_>) =
        message.authorization.into_iter().partition(external::is_check);
    Ok(BoundService {
        key: NamespacedName {
            namespace: field::required("namespace", message.namespace)?,
            name: field::required("hostname", message.hostname)?,
        },
        addressed,
        ports: list(message.ports, decode_port)?,
        destinations,
        requests: Arc::new(traffic::decode_requests(field::present("requests", message.requests)?)?),
        authentication: list(message.authentication, authentication::decode_provider)?,
        authorization: list(policies, |p| authorization::decode_policy(p).map(Arc::new))?,
        checks: list(checks, external::decode_check)?,
        unenforceable: list(message.unenforceable, refused)?,
    })
}

fn encode_port(port: &BoundPort) -> wire::Port {
    let consumer =
        |(namespace, routes): (&Arc<str>, &Routes)| (namespace.to_string(), route::encode_routes(routes));
    wire::Port {
        port: port.port.into(),
        protocol: encode_protocol(port.protocol).into(),
        routes: Some(route::encode_routes(&port.routes)),
        consumers: port.consumers.iter().map(consumer).collect(),
    }
}

fn decode_port(message: wire::Port) -> Result<BoundPort, Invalid> {
    let consumer = |(namespace, routes): (String, wire::Routes)| {
        Ok((field::required("consumers", namespace)?, route::decode_routes(routes)?))
    };
    Ok(BoundPort {
        port: field::port("ports.port", message.port)?,
        protocol: decode_protocol("ports.protocol", message.protocol)?,
        routes: route::decode_routes(field::present("ports.routes", message.routes)?)?,
        consumers: message.consumers.into_iter().map(consumer).collect::<Result<_, Invalid>>()?,
    })
}

fn encode_settings((destination, settings): (&Destination, &DestinationSettings)) -> wire::DestinationEntry {
    wire::DestinationEntry {
        destination: Some(encode_destination(destination)),
        protocol: encode_protocol(settings.protocol).into(),
        policy: Some(traffic::encode_policy(&settings.policy)),
    }
}

fn decode_settings(entry: wire::DestinationEntry) -> Result<(Destination, DestinationSettings), Invalid> {
    let destination = field::present("destinations.destination", entry.destination)?;
    let policy = field::present("destinations.policy", entry.policy)?;
    let settings = DestinationSettings {
        protocol: decode_protocol("destinations.protocol", entry.protocol)?,
        policy: Arc::new(traffic::decode_policy(policy)?),
    };
    Ok((decode_destination("destinations.destination", destination)?, settings))
}

fn encode_protocol(protocol: AppProtocol) -> wire::AppProtocol {
    match protocol {
        AppProtocol::Detect => wire::AppProtocol::Detect,
        AppProtocol::Http => wire::AppProtocol::Http,
        AppProtocol::Http2 => wire::AppProtocol::Http2,
        AppProtocol::Tcp => wire::AppProtocol::Tcp,
        AppProtocol::Tls => wire::AppProtocol::Tls,
    }
}

fn decode_protocol(field: &'static str, number: i32) -> Result<AppProtocol, Invalid> {
    Ok(match field::enumeration(field, number)? {
        wire::AppProtocol::Detect => AppProtocol::Detect,
        wire::AppProtocol::Http => AppProtocol::Http,
        wire::AppProtocol::Http2 => AppProtocol::Http2,
        wire::AppProtocol::Tcp => AppProtocol::Tcp,
        wire::AppProtocol::Tls => AppProtocol::Tls,
    })
}

#[cfg(test)]
mod tests;
