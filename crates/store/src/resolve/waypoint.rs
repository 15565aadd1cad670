//! Routing to destinations that are only reachable through a waypoint.
//!
//! Invariant: the route is a tunnel to an eligible pod of the waypoint, or a refusal. A pod belongs
//! to the waypoint only if it has the identity of the Gateway, whatever its labels are. Only the
//! waypoint's own pods are reached without it and reach others without it, so a connection passes
//! exactly one waypoint, once.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ambit_model::{GatewayAddress, GatewayDestination, HealthPolicy, NamespacedName, Service, Workload};

use super::{
    endpoint::{ALTERNATIVES_MAX, canonical, port_to, preferred_address, tunnels},
    route::{Hop, OutboundRequest, Refusal, Route},
};
use crate::{
    Snapshot,
    balance::{ServiceEntry, takes_traffic},
};

/// The waypoint of a service or workload.
pub(super) struct Waypoint<'a> {
    gateway: &'a GatewayAddress,
    pods: Pods<'a>,
}

enum Pods<'a> {
    /// By its service: the endpoints, if the service is known.
    Service(NamespacedName, Option<(&'a ServiceEntry, &'a Arc<Service>)>),
    /// By its address: the pod that has it.
    One(&'a Arc<Workload>),
    /// By an address that no workload has.
    Unknown,
}

/// The waypoint through which `service` must be reached; `None` if it has none, is itself a
/// waypoint, or is requested by its waypoint.
pub(super) fn of_service<'a>(
    snapshot: &'a Snapshot,
    service: &'a Service,
    request: OutboundRequest<'_>,
) -> Option<Waypoint<'a>> {
    let waypoint = Waypoint::find(snapshot, service.waypoint.as_ref()?, request);
    (!waypoint.is(service) && !waypoint.has(request.source)).then_some(waypoint)
}

/// The waypoint through which `workload` must be reached by its own address, so that no waypoint
/// can be bypassed: that of a service with this port, otherwise the workload's own. Only services
/// of the workload's namespace count. `None` as for a service.
pub(super) fn of_workload<'a>(
    snapshot: &'a Snapshot,
    workload: &'a Workload,
    request: OutboundRequest<'_>,
) -> Option<Waypoint<'a>> {
    let port = request.destination.port();
    let own = workload.services.keys().filter(|key| key.namespace == workload.namespace);
    let mut of_services = own.filter_map(|key| {
        let service = snapshot.service(key)?;
        let gateway = service.waypoint.as_ref()?;
        port_to(workload, service, port).map(|_| gateway)
    });
    let gateway = of_services.next().or(workload.waypoint.as_ref())?;
    let waypoint = Waypoint::find(snapshot, gateway, request);
    // A pod that connects to itself stays inside its network namespace.
    let is_itself = workload.uid == request.source.uid;
    (!is_itself && !waypoint.has(workload) && !waypoint.has(request.source)).then_some(waypoint)
}

/// Whether `pod` belongs to the waypoint through which `workload` must be reached by its own
/// address.
pub fn guards(snapshot: &Snapshot, pod: &Workload, workload: &Workload) -> bool {
    // The waypoint does not depend on the port or address of the request.
    let request = OutboundRequest { source: pod, destination: (Ipv4Addr::UNSPECIFIED, 0).into() };
    let gateway = workload.waypoint.as_ref();
    gateway.is_some_and(|gateway| Waypoint::find(snapshot, gateway, request).has(pod))
}

impl<'a> Waypoint<'a> {
    fn find(snapshot: &'a Snapshot, gateway: &'a GatewayAddress, request: OutboundRequest<'_>) -> Self {
        let known = |entry: &'a Arc<ServiceEntry>| Some((&**entry, entry.service.as_ref()?));
        let pods = match &gateway.destination {
            GatewayDestination::Hostname(key) => {
                Pods::Service(key.clone(), snapshot.services.get(key).and_then(known))
            }
            GatewayDestination::Address(address) => {
                match snapshot.entry_by_vip(address, &request.source.namespace).and_then(known) {
                    Some((entry, service)) => Pods::Service(service.key(), Some((entry, service))),
                    None => snapshot.workload_by_address(address).map_or(Pods::Unknown, Pods::One),
                }
            }
        };
        Self { gateway, pods }
    }

    fn is(&self, service: &Service) -> bool {
        match &self.pods {
            Pods::Service(key, _) => key.name == service.hostname && key.namespace == service.namespace,
            Pods::One(_) | Pods::Unknown => false,
        }
    }

    fn has(&self, workload: &Workload) -> bool {
        match &self.pods {
            Pods::Service(key, _) => workload.services.contains_key(key) && is_gateways(key, workload),
            Pods::One(pod) => pod.uid == workload.uid,
            Pods::Unknown => false,
        }
    }

    /// Routes through the pods of the waypoint: the one that `pick` selects, and at most
    /// [`ALTERNATIVES_MAX`] more.
    pub(super) fn routes(
        &self,
        service: Option<&Arc<Service>>,
        request: OutboundRequest<'_>,
        pick: u64,
    ) -> Vec<Route> {
        let through = |pod: &Arc<Workload>| {
            let ip = preferred_address(pod, request.destination.ip())?;
            tunnels(pod).then(|| Route::Hbone {
                address: SocketAddr::new(ip, self.gateway.hbone_mtls_port),
                authority: canonical(request.destination),
                hop: Hop::Waypoint,
                upstream: pod.clone(),
                service: service.cloned(),
            })
        };
        match &self.pods {
            Pods::Service(key, Some((entry, of_waypoint))) => {
                let endpoints = entry.view_for(of_waypoint, request.source);
                let pods = endpoints.picked_first(pick).filter(|pod| is_gateways(key, pod));
                pods.filter_map(through).take(1 + ALTERNATIVES_MAX).collect()
            }
            Pods::One(pod) if takes_traffic(pod, HealthPolicy::OnlyHealthy, request.source) => {
                through(pod).into_iter().collect()
            }
            Pods::Service(_, None) | Pods::One(_) | Pods::Unknown => Vec::new(),
        }
    }

    /// Why `destination` cannot be reached when [`Self::routes`] is empty.
    pub(super) fn refusal(&self, destination: String) -> Route {
        let waypoint = match &self.gateway.destination {
            GatewayDestination::Hostname(key) => key.to_string(),
            GatewayDestination::Address(address) => address.address.to_string(),
        };
        Route::Refused(Refusal::NoReadyWaypoint {
            destination: destination.into(),
            waypoint: waypoint.into(),
        })
    }
}

/// Whether a pod runs as the service account of the Gateway that the service `key` was created for.
/// Account and service have the Gateway's name, which is the first label of the service's host
/// name.
fn is_gateways(key: &NamespacedName, pod: &Workload) -> bool {
    let gateway = key.name.split('.').next().unwrap_or_default();
    pod.namespace == key.namespace && *pod.service_account == *gateway
}
