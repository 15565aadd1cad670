//! Resolves the `:authority` of a CONNECT. Pure.
//!
//! Invariant: a target is a port of a service, or of a pod, that is bound here; any other authority is refused. A pod
//! addressed by its own address is guarded by the policies of a service that leads to the port, else by those for pods;
//! routes do not apply to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ambit_hbone::{Authority, Host};
use ambit_model::{Addressed, AppProtocol, NetworkAddress, Spiffe, Workload, bound::DestinationSettings};
use ambit_store::{Snapshot, guards, port_to};
use http::StatusCode;

use crate::{service::Service, services::Bound, upstream::Upstream};

/// Where a tunnel leads.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service.
    pub service: Arc<Service>,
    /// Its address as the client connected to it; for a pod, the pod's address with the port of the service.
    pub address: SocketAddr,
    /// The pod, if the client addressed one by its own address.
    pub pod: Option<Pod>,
}

/// A pod that the client addressed by its own address.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its uid.
    pub uid: Arc<str>,
    /// The destination for a pod that is bound itself; `None` if it is reached as an endpoint of its service.
    pub upstream: Option<Arc<Upstream>>,
}

impl Target {
    /// The protocol that clients speak to it; `None` if the service no longer has the port.
    pub fn protocol(&self) -> Option<AppProtocol> {
        let number = self.address.port();
        let said = self.service.port(number)?.protocol;
        // Ports of a pod are not declared, so the port number decides.
        Some(if said == AppProtocol::Detect { AppProtocol::of_port(number) } else { said })
    }

    /// Has a pod that is bound itself reached by HTTP/2, as its client speaks it: its ports declare no protocol.
    pub fn speaks_http2(&self) {
        let settings = DestinationSettings { protocol: AppProtocol::Http2, ..Default::default() };
        if let Some(upstream) = self.pod.as_ref().and_then(|pod| pod.upstream.as_ref()) {
            upstream.configure(&settings);
        }
    }
}

/// Why a tunnel leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The services bound here have not been received yet.
    #[error("the services bound to this waypoint have not been received yet; is the operator reachable?")]
    NotReceived,
    /// Not an address of a service or pod that is bound here.
    #[error("{0} is not a service or pod bound to this waypoint")]
    NotBound(Authority),
    /// The store does not know the address, and the operator did not answer in time.
    #[error("{0} is not known, and the operator did not describe it in time; is it reachable?")]
    UnknownAddress(Authority),
    /// Not a port of the service.
    #[error("the service of {0} has no such port")]
    NoSuchPort(Authority),
    /// It is bound here, but its configuration could not be read.
    #[error("{0} is bound to this waypoint, but its configuration could not be decoded")]
    Unreadable(Authority),
}

impl Refused {
    /// The status that answers the CONNECT.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotReceived | Self::UnknownAddress(_) | Self::Unreadable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NotBound(_) | Self::NoSuchPort(_) => StatusCode::NOT_FOUND,
        }
    }
}

/// `own` is the waypoint's pod.
///
/// # Errors
/// [`Refused`]
pub fn target(
    authority: &Authority,
    peer: &Spiffe,
    (bound, snapshot): (&Bound, &Snapshot),
    own: &Workload,
) -> Result<Target, Refused> {
    if !bound.synced {
        return Err(Refused::NotReceived);
    }
    let (service, ip) = match &authority.host {
        Host::Ip(ip) => {
            let vip = NetworkAddress { network: own.network.clone(), address: ip.to_canonical() };
            if let Some(pod) = snapshot.workload_by_address(&vip) {
                let address = SocketAddr::new(vip.address, authority.port);
                return by_address((pod, address), (bound, snapshot), own)
                    .map_err(|Unreadable| Refused::Unreadable(authority.clone()))?
                    .ok_or_else(|| Refused::NotBound(authority.clone()));
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

/// The configuration of the service could not be read.
struct Unreadable;

/// A pod as an endpoint of a service, else as one that is bound itself.
fn by_address(
    asked: (&Arc<Workload>, SocketAddr),
    world: (&Bound, &Snapshot),
    own: &Workload,
) -> Result<Option<Target>, Unreadable> {
    match endpoint(asked, world)? {
        Some(target) => Ok(Some(target)),
        None => itself(asked, world, own),
    }
}

/// A pod as an endpoint of the first of its services that is bound here and leads to the port. A service that could not be
/// read refuses the target: it may forbid what others allow.
fn endpoint(
    (pod, address): (&Arc<Workload>, SocketAddr),
    (bound, snapshot): (&Bound, &Snapshot),
) -> Result<Option<Target>, Unreadable> {
    let mut found = None;
    for key in pod.services.keys() {
        let Some((service, of_mesh)) = bound.get(key).zip(snapshot.service(key)) else { continue };
        let Some(port) = port_to(pod, of_mesh, address.port()) else { continue };
        if service.is_unreadable() {
            return Err(Unreadable);
        }
        if found.is_none() && service.port(port).is_some() {
            let address = SocketAddr::new(address.ip(), port);
            let pod = Pod { uid: pod.uid.clone(), upstream: None };
            found = Some(Target { service: service.clone(), address, pod: Some(pod) });
        }
    }
    Ok(found)
}

/// A pod that is bound itself, on any port.
fn itself(
    (pod, address): (&Arc<Workload>, SocketAddr),
    (bound, snapshot): (&Bound, &Snapshot),
    own: &Workload,
) -> Result<Option<Target>, Unreadable> {
    let Some(service) = bound.pods(&pod.namespace) else { return Ok(None) };
    if service.is_unreadable() {
        return Err(Unreadable);
    }
    let upstream = Upstream::of_pod(pod, address, own).filter(|_| is_bound(service, pod, snapshot, own));
    Ok(upstream.map(|upstream| {
        let pod = Pod { uid: pod.uid.clone(), upstream: Some(Arc::new(upstream)) };
        Target { service: service.clone(), address, pod: Some(pod) }
    }))
}

/// Whether `pods`, the policies for pods of a namespace, apply to a pod.
pub fn is_bound(pods: &Service, pod: &Workload, snapshot: &Snapshot, own: &Workload) -> bool {
    match &pods.bound.addressed {
        Addressed::Service => false,
        Addressed::Pods(on_their_way) => on_their_way.contains(&pod.uid) || guards(snapshot, own, pod),
    }
}
