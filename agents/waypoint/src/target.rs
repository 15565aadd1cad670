//! What the `:authority` of a CONNECT means to this waypoint. Pure.
//!
//! Invariant: the answer is always a port of a service that is bound here; whatever else is asked for is refused. A pod
//! that is asked for by its own address is guarded by the policies of its service, and routes have no say.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ambit_hbone::{Authority, Host};
use ambit_model::{NetworkAddress, Spiffe};
use ambit_store::{Snapshot, port_to};
use http::StatusCode;

use crate::{service::Service, services::Bound};

/// Where a tunnel leads.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service.
    pub service: Arc<Service>,
    /// Its address, as the client knows it; the pod's, with the port of the service, when a pod was asked for.
    pub address: SocketAddr,
    /// Uid of the pod that was asked for by its own address.
    pub pod: Option<Arc<str>>,
}

/// Why a tunnel leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The control plane has not said yet what is bound here.
    #[error("the services bound to this waypoint have not been received yet; is the operator reachable?")]
    NotReceived,
    /// Not an address of a service that is bound here.
    #[error("{0} is no service that is bound to this waypoint")]
    NotBound(Authority),
    /// Not a port of the service.
    #[error("the service of {0} has no such port")]
    NoSuchPort(Authority),
    /// The service is bound here, and what is to be done with it could not be read.
    #[error("the service of {0} is bound to this waypoint, which could not read what to do with it")]
    Unreadable(Authority),
}

impl Refused {
    /// What the peer is told.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotReceived | Self::Unreadable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotBound(_) | Self::NoSuchPort(_) => StatusCode::NOT_FOUND,
        }
    }
}

/// `network` is the waypoint's own.
///
/// # Errors
/// [`Refused`]
pub fn target(
    authority: &Authority,
    peer: &Spiffe,
    (bound, snapshot): (&Bound, &Snapshot),
    network: &Arc<str>,
) -> Result<Target, Refused> {
    if !bound.synced {
        return Err(Refused::NotReceived);
    }
    let (service, ip) = match &authority.host {
        Host::Ip(ip) => {
            let vip = NetworkAddress { network: network.clone(), address: ip.to_canonical() };
            if let Some(target) = pod(&vip, authority.port, (bound, snapshot)) {
                return Ok(target);
            }
            let named = snapshot.service_by_vip(&vip, &peer.namespace);
            (named.and_then(|service| bound.get(&service.key())), vip.address)
        }
        Host::Name(hostname) => {
            let service = bound.by_hostname(hostname, &peer.namespace);
            let named = service.and_then(|service| snapshot.service(&service.bound.key));
            let vip = named.and_then(|service| service.addresses.first()).map(|vip| vip.address);
            (service, vip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
        }
    };
    let service = service.ok_or_else(|| Refused::NotBound(authority.clone()))?;
    if service.port(authority.port).is_none() {
        return Err(match service.is_unreadable() {
            true => Refused::Unreadable(authority.clone()),
            false => Refused::NoSuchPort(authority.clone()),
        });
    }
    Ok(Target { service: service.clone(), address: SocketAddr::new(ip, authority.port), pod: None })
}

/// A pod by its own address: the first of its services that is bound here and leads to the port.
fn pod(address: &NetworkAddress, port: u16, (bound, snapshot): (&Bound, &Snapshot)) -> Option<Target> {
    let pod = snapshot.workload_by_address(address)?;
    pod.services.keys().find_map(|key| {
        let service = bound.get(key)?;
        let port = port_to(pod, snapshot.service(key)?, port)?;
        service.port(port)?;
        let address = SocketAddr::new(address.address, port);
        Some(Target { service: service.clone(), address, pod: Some(pod.uid.clone()) })
    })
}
