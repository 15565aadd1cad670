//! Routing of an outbound connection: a pure function of a snapshot, the request and a random
//! number.
//!
//! Invariant: it fails closed. A destination that cannot be reached as the mesh requires is refused
//! with a reason. Plaintext is used only for a peer that is known to accept no tunnel, or for a
//! destination outside the mesh. An unknown address that may belong to the cluster does not count
//! as outside.

mod waypoint;

pub use waypoint::guards;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ambit_model::{
    LoadBalancingMode, NamespacedName, NetworkAddress, Service, Spiffe, TunnelProtocol, Workload,
};

use crate::{Snapshot, apply::is_pod, balance::ServiceEntry};

/// How many further endpoints [`alternatives`] offers.
pub const ALTERNATIVES_MAX: usize = 2;

/// An outbound connection of a pod.
#[derive(Clone, Copy, Debug)]
pub struct OutboundRequest<'a> {
    /// The pod that connects.
    pub source: &'a Workload,
    /// Its destination.
    pub destination: SocketAddr,
}

/// The routing decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through an HBONE tunnel.
    Hbone {
        /// The HBONE listener to connect to.
        address: SocketAddr,
        /// The value of `:authority`: the pod and its target port, or for a waypoint the original
        /// destination.
        authority: SocketAddr,
        /// Whether the tunnel ends at the destination or at a waypoint.
        hop: Hop,
        /// The pod at the end of the tunnel.
        upstream: Arc<Workload>,
        /// The service that was addressed.
        service: Option<Arc<Service>>,
    },
    /// Plain TCP.
    Tcp {
        /// Address to connect to.
        address: SocketAddr,
        /// The destination pod, if it is one.
        upstream: Option<Arc<Workload>>,
        /// The service that was addressed.
        service: Option<Arc<Service>>,
    },
    /// The address is unknown and may belong to the cluster: [`crate::Lookup`] must decide.
    Unheard(SocketAddr),
    /// The connection must be reset.
    Refused(Refusal),
}

/// What is at the end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The destination pod.
    Last,
    /// A pod of the waypoint, which routes the traffic on.
    Waypoint,
}

/// Why a connection cannot be routed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Addresses have not been received, so the destination cannot be classified.
    #[error("the mesh's addresses have not been received yet; is the operator reachable from this node?")]
    AddressesNotReceived,
    /// The address may belong to the cluster, and the operator did not answer.
    #[error(
        "{0} may be a pod or service that this node does not know, and the operator did not answer in time; is it \
         reachable from this node?"
    )]
    NotHeardOf(SocketAddr),
    /// The operator knows the address, but its description could not be decoded.
    #[error("the operator knows {0}, but this node could not decode its description; see its log")]
    NotUnderstood(SocketAddr),
    /// The service has no eligible endpoint.
    #[error("no healthy upstream: service {0} has no endpoint that may take traffic from here")]
    NoHealthyEndpoint(NamespacedName),
    /// No endpoint of the service serves this port.
    #[error("service {0} does not serve port {1}")]
    NoSuchPort(NamespacedName, u16),
    /// A waypoint is required, and it has no eligible pod.
    #[error(
        "no healthy upstream: {destination} is only reached through its waypoint {waypoint}, which has no ready pod; see its Gateway"
    )]
    NoReadyWaypoint {
        /// The service or workload.
        destination: Arc<str>,
        /// Its waypoint.
        waypoint: Arc<str>,
    },
}

impl Route {
    /// The pod at the other end, if it is one.
    pub fn upstream(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Hbone { upstream, .. } => Some(upstream),
            Self::Tcp { upstream, .. } => upstream.as_ref(),
            Self::Unheard(_) | Self::Refused(_) => None,
        }
    }

    /// The service that was addressed.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Hbone { service, .. } | Self::Tcp { service, .. } => service.as_ref(),
            Self::Unheard(_) | Self::Refused(_) => None,
        }
    }

    /// The accepted identities of the peer: the pod's, and the subject alternative names of its
    /// service; for a waypoint only its own. Empty for a route without a tunnel. Computed on
    /// demand, because only dialing needs it.
    pub fn expected_identities(&self) -> Arc<[Spiffe]> {
        match self {
            Self::Hbone { hop: Hop::Last, upstream, service: Some(service), .. }
                if !service.subject_alt_names.is_empty() =>
            {
                let also = service.subject_alt_names.iter().filter_map(|id| id.parse().ok());
                std::iter::once(upstream.identity()).chain(also).collect()
            }
            Self::Hbone { upstream, .. } => Arc::new([upstream.identity()]),
            Self::Tcp { .. } | Self::Unheard(_) | Self::Refused(_) => Arc::default(),
        }
    }

    /// A route to a destination outside the mesh.
    pub(crate) fn outside(address: SocketAddr) -> Self {
        Self::Tcp { address, upstream: None, service: None }
    }
}

/// Routes one connection. `pick` is a uniformly random number.
pub fn resolve(snapshot: &Snapshot, request: OutboundRequest<'_>, pick: u64) -> Route {
    if !snapshot.addresses_received {
        return Route::Refused(Refusal::AddressesNotReceived);
    }
    if let Some((entry, service)) = addressed(snapshot, request) {
        return to_service(snapshot, (entry, service), request, pick);
    }
    let destination = destination(request);
    match snapshot.workload_by_address(&destination) {
        Some(upstream) => to_pod(snapshot, upstream, request, pick),
        None if snapshot.ranges.may_hold(&destination) => Route::Unheard(canonical(request.destination)),
        None => Route::outside(canonical(request.destination)),
    }
}

/// Other endpoints to try when the one that [`resolve`] selected with the same `pick` could not be
/// reached before a byte was sent. Empty unless the destination is a service or behind a waypoint.
/// At most [`ALTERNATIVES_MAX`].
pub fn alternatives(snapshot: &Snapshot, request: OutboundRequest<'_>, pick: u64) -> Vec<Route> {
    let Some((entry, service)) = addressed(snapshot, request) else {
        let upstream = snapshot.workload_by_address(&destination(request));
        let waypoint = upstream.and_then(|upstream| waypoint::of_workload(snapshot, upstream, request));
        let routes = waypoint.map(|waypoint| waypoint.routes(None, request, pick)).unwrap_or_default();
        return routes.into_iter().skip(1).collect();
    };
    if let Some(waypoint) = waypoint::of_service(snapshot, service, request) {
        return waypoint.routes(Some(service), request, pick).into_iter().skip(1).collect();
    }
    if is_passthrough(service) {
        return Vec::new();
    }
    let endpoints = entry.seen_by(service, request.source);
    // Behind a waypoint, each alternative uses another pod of it.
    let endpoints = endpoints.for_client(service, request.source, pick);
    let routes = endpoints.zip((0..).map(|next| pick.wrapping_add(next)));
    routes
        .filter_map(|(endpoint, pick)| to_endpoint(snapshot, (endpoint, service), request, pick))
        .skip(1)
        .filter(|route| !matches!(route, Route::Refused(_)))
        .take(ALTERNATIVES_MAX)
        .collect()
}

pub(crate) fn destination(request: OutboundRequest<'_>) -> NetworkAddress {
    NetworkAddress {
        network: request.source.network.clone(),
        address: request.destination.ip().to_canonical(),
    }
}

/// The service with the requested virtual address.
fn addressed<'a>(
    snapshot: &'a Snapshot,
    request: OutboundRequest<'_>,
) -> Option<(&'a Arc<ServiceEntry>, &'a Arc<Service>)> {
    let entry = snapshot.entry_by_vip(&destination(request), &request.source.namespace)?;
    Some((entry, entry.service.as_ref()?))
}

fn to_service(
    snapshot: &Snapshot,
    (entry, service): (&ServiceEntry, &Arc<Service>),
    request: OutboundRequest<'_>,
    pick: u64,
) -> Route {
    if let Some(waypoint) = waypoint::of_service(snapshot, service, request) {
        let refused = || waypoint.refusal(service.key().to_string());
        return waypoint.routes(Some(service), request, pick).into_iter().next().unwrap_or_else(refused);
    }
    if is_passthrough(service) {
        let address = canonical(request.destination);
        return Route::Tcp { address, upstream: None, service: Some(service.clone()) };
    }
    let endpoints = entry.seen_by(service, request.source);
    if endpoints.is_empty() {
        return Route::Refused(Refusal::NoHealthyEndpoint(service.key()));
    }
    // Usually the first; an endpoint without the named port is skipped.
    endpoints
        .for_client(service, request.source, pick)
        .find_map(|endpoint| to_endpoint(snapshot, (endpoint, service), request, pick))
        .unwrap_or_else(|| Route::Refused(Refusal::NoSuchPort(service.key(), request.destination.port())))
}

/// The route to one endpoint of a service without a waypoint. If the endpoint admits only a
/// waypoint, through that one.
fn to_endpoint(
    snapshot: &Snapshot,
    (endpoint, service): (&Arc<Workload>, &Arc<Service>),
    request: OutboundRequest<'_>,
    pick: u64,
) -> Option<Route> {
    let target = target_port(endpoint, service, request.destination.port())?;
    let destination = SocketAddr::new(preferred_address(endpoint, request.destination.ip())?, target);
    let asked = OutboundRequest { destination, ..request };
    let Some(waypoint) = waypoint::of_workload(snapshot, endpoint, asked) else {
        return route_to(endpoint, service, request);
    };
    let refused = || waypoint.refusal(endpoint.uid.to_string());
    Some(waypoint.routes(Some(service), asked, pick).into_iter().next().unwrap_or_else(refused))
}

/// The route to one endpoint of `service` that bypasses any waypoint. `request.destination` gives
/// the service port and, by its address, the preferred address family. `None` when the endpoint
/// does not serve that port, or when it is a pod of another namespace that is only reachable
/// through a waypoint: bypassing that one, this waypoint would lend its own identity to requests
/// that were never authorized for the pod.
pub fn route_to(
    endpoint: &Arc<Workload>,
    service: &Arc<Service>,
    request: OutboundRequest<'_>,
) -> Option<Route> {
    if !is_pod(endpoint) && endpoint.waypoint.is_some() {
        return None;
    }
    let target = target_port(endpoint, service, request.destination.port())?;
    let authority = SocketAddr::new(preferred_address(endpoint, request.destination.ip())?, target);
    let service = Some(service.clone());
    // A pod that connects to itself stays inside its network namespace, where its own address is
    // not redirected and no tunnel listener runs. Through a service it therefore behaves as by
    // address.
    Some(if tunnels(endpoint) && endpoint.uid != request.source.uid {
        let address = endpoint.hbone_address(authority.ip());
        Route::Hbone { address, authority, hop: Hop::Last, upstream: endpoint.clone(), service }
    } else {
        Route::Tcp { address: authority, upstream: Some(endpoint.clone()), service }
    })
}

/// The port of `endpoint` for `port` of `service`: the endpoint's own mapping, otherwise the
/// service's target port.
fn target_port(endpoint: &Workload, service: &Service, port: u16) -> Option<u16> {
    endpoint.target_port(&service.key(), port).or_else(|| {
        let of_service = service.ports.iter().find(|p| p.port == port)?;
        (of_service.target_port > 0).then_some(of_service.target_port)
    })
}

/// The port of `service` that leads to `target` of `endpoint`, if one does.
pub fn port_to(endpoint: &Workload, service: &Service, target: u16) -> Option<u16> {
    let mut ports = service.ports.iter().map(|port| port.port);
    ports.find(|port| target_port(endpoint, service, *port) == Some(target))
}

fn to_pod(snapshot: &Snapshot, upstream: &Arc<Workload>, request: OutboundRequest<'_>, pick: u64) -> Route {
    if let Some(waypoint) = waypoint::of_workload(snapshot, upstream, request) {
        let refused = || waypoint.refusal(upstream.uid.to_string());
        return waypoint.routes(None, request, pick).into_iter().next().unwrap_or_else(refused);
    }
    route_to_pod(upstream, request)
}

/// The route to a pod by its own address, bypassing any waypoint.
pub fn route_to_pod(upstream: &Arc<Workload>, request: OutboundRequest<'_>) -> Route {
    let destination = canonical(request.destination);
    if tunnels(upstream) && upstream.uid != request.source.uid {
        return Route::Hbone {
            address: upstream.hbone_address(destination.ip()),
            authority: destination,
            hop: Hop::Last,
            upstream: upstream.clone(),
            service: None,
        };
    }
    Route::Tcp { address: destination, upstream: Some(upstream.clone()), service: None }
}

fn tunnels(workload: &Workload) -> bool {
    match workload.tunnel_protocol {
        TunnelProtocol::Hbone => true,
        TunnelProtocol::None => false,
    }
}

fn is_passthrough(service: &Service) -> bool {
    service.load_balancing.mode == LoadBalancingMode::Passthrough
}

/// The first address of the requested family, otherwise the first.
fn preferred_address(endpoint: &Workload, asked: IpAddr) -> Option<IpAddr> {
    let asked = asked.to_canonical();
    let same_family = endpoint.addresses.iter().find(|ip| ip.to_canonical().is_ipv4() == asked.is_ipv4());
    same_family.or_else(|| endpoint.addresses.first()).map(IpAddr::to_canonical)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
