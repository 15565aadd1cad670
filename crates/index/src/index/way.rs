//! What determines the route of a connection to one address, for a client that does not hold the
//! whole mesh.
//!
//! Invariant: a client with these workloads and Services routes the connection like one with
//! everything. They include the owner of the address, the endpoints of a Service with that address,
//! the Services that those endpoints serve, and the waypoints of all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ambit_model::{GatewayAddress, GatewayDestination, NamespacedName, Service, Workload};

use super::Index;

impl Index {
    /// The workloads and Services that determine the route of connections to `address`.
    pub fn leading_to(&self, address: IpAddr) -> (Vec<Arc<Workload>>, Vec<Arc<Service>>) {
        let address = address.to_canonical();
        let has_it = |service: &&Arc<Service>| service.addresses.iter().any(|a| a.address == address);
        let asked = self.services().filter(has_it).cloned();
        let mut services: BTreeMap<NamespacedName, Arc<Service>> =
            asked.map(|service| (service.key(), service)).collect();
        let at_it = self.workloads().filter(|workload| workload.addresses.contains(&address)).cloned();
        let mut workloads: BTreeMap<Arc<str>, Arc<Workload>> =
            at_it.chain(self.endpoints_of(services.keys())).map(|w| (w.uid.clone(), w)).collect();
        // The waypoint of another Service may handle the same port.
        for key in workloads.values().flat_map(|workload| workload.services.keys()) {
            if let Some(service) = self.service(key) {
                services.insert(key.clone(), service.clone());
            }
        }
        let of_services = services.values().filter_map(|service| service.waypoint.as_ref());
        let gateways = of_services.chain(workloads.values().filter_map(|w| w.waypoint.as_ref()));
        let waypoints: BTreeSet<NamespacedName> = gateways.filter_map(service_of).cloned().collect();
        workloads.extend(self.endpoints_of(waypoints.iter()).map(|pod| (pod.uid.clone(), pod)));
        for key in &waypoints {
            services.extend(self.service(key).map(|service| (key.clone(), service.clone())));
        }
        (workloads.into_values().collect(), services.into_values().collect())
    }

    /// The workload of a pod.
    pub fn workload_of(&self, pod: &NamespacedName) -> Option<&Arc<Workload>> {
        self.pods.get(pod)?.workload.as_ref()
    }

    fn endpoints_of<'a>(
        &self,
        services: impl Iterator<Item = &'a NamespacedName>,
    ) -> impl Iterator<Item = Arc<Workload>> {
        let uids = services.filter_map(|key| self.layer7.workloads_by_service.get(key)).flatten();
        uids.filter_map(|uid| self.workload(uid)).cloned()
    }
}

/// The Service of a waypoint; the index references waypoints only by this name.
fn service_of(gateway: &GatewayAddress) -> Option<&NamespacedName> {
    match &gateway.destination {
        GatewayDestination::Hostname(key) => Some(key),
        GatewayDestination::Address(_) => None,
    }
}
