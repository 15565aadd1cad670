//! Routing of an outbound connection: a pure function of a snapshot, the request and a random
//! number.
//!
//! Invariant: it fails closed. A destination that cannot be reached as the mesh requires is refused
//! with a reason. Plaintext is used only for a peer that is known to accept no tunnel, or for a
//! destination outside the mesh. An unknown address that may belong to the cluster does not count
//! as outside.

mod endpoint;
mod route;
mod waypoint;

pub use endpoint::{ALTERNATIVES_MAX, port_to};
pub use route::{Hop, OutboundRequest, Refusal, Route};
pub use waypoint::guards;

use std::{net::SocketAddr, sync::Arc};

use ambit_model::{LoadBalancingMode, NetworkAddress, Service, Workload};

use endpoint::{canonical, preferred_address, target_port, tunnels};

use crate::{Snapshot, apply::is_pod, balance::ServiceEntry};

/// Routes one connection. `pick` is a uniformly random number.
pub fn resolve(snapshot: &Snapshot, request: OutboundRequest<'_>, pick: u64) -> Route {
    if !snapshot.addresses_received {
        return Route::Refused(Refusal::AddressesNotReceived);
    }
    if let Some((entry, service)) = addressed(snapshot, request) {
        return to_service(snapshot, entry, service, request, pick);
    }
    let destination = destination(request);
    match snapshot.workload_by_address(&destination) {
        Some(upstream) => to_pod(snapshot, upstream, request, pick),
        None if snapshot.ranges.may_hold(&destination) => Route::Unknown(canonical(request.destination)),
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
    let endpoints = entry.view_for(service, request.source);
    // Behind a waypoint, each alternative uses another pod of it.
    let endpoints = endpoints.for_client(service, request.source, pick);
    let routes = endpoints.zip((0..).map(|next| pick.wrapping_add(next)));
    routes
        .filter_map(|(endpoint, pick)| to_endpoint(snapshot, endpoint, service, request, pick))
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
    entry: &ServiceEntry,
    service: &Arc<Service>,
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
    let endpoints = entry.view_for(service, request.source);
    if endpoints.is_empty() {
        return Route::Refused(Refusal::NoHealthyEndpoint(service.key()));
    }
    // Usually the first; an endpoint without the named port is skipped.
    endpoints
        .for_client(service, request.source, pick)
        .find_map(|endpoint| to_endpoint(snapshot, endpoint, service, request, pick))
        .unwrap_or_else(|| Route::Refused(Refusal::NoSuchPort(service.key(), request.destination.port())))
}

/// The route to one endpoint of a service without a waypoint. If the endpoint admits only a
/// waypoint, through that one.
fn to_endpoint(
    snapshot: &Snapshot,
    endpoint: &Arc<Workload>,
    service: &Arc<Service>,
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

fn is_passthrough(service: &Service) -> bool {
    service.load_balancing.mode == LoadBalancingMode::Passthrough
}

#[cfg(test)]
mod tests;
