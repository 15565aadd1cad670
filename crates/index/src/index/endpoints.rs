//! Endpoints of services without selector: maps the addresses in EndpointSlices to their owners.
//!
//! Invariant: a pod is an endpoint only of Services in its own namespace, whatever a slice says. So
//! another namespace's slice can neither admit anyone to the pod nor redirect the pod's traffic.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ambit_model::{GatewayAddress, NamespacedName, Workload};

use super::{Index, maps::remove_from};
use crate::{
    changes::Changes,
    pods::PodFacts,
    slices::{EndpointFacts, Listed, SliceFacts},
};

/// The resolved endpoints of a slice.
#[derive(Debug, Default)]
struct ResolvedSlice {
    pods: BTreeSet<NamespacedName>,
    workloads: Vec<Workload>,
}

impl Index {
    pub(super) fn set_slice(
        &mut self,
        name: NamespacedName,
        facts: Option<SliceFacts>,
        changes: &mut Changes,
    ) {
        let old = self.slices.by_name.get(&name).cloned();
        if old == facts {
            return;
        }
        if let Some(old) = &old {
            old.addresses().for_each(|address| remove_from(&mut self.slices.by_address, &address, &name));
            remove_from(&mut self.slices.by_service, &old.service, &name);
        }
        match facts {
            Some(facts) => {
                for address in facts.addresses() {
                    self.slices.by_address.entry(address).or_default().insert(name.clone());
                }
                self.slices.by_service.entry(facts.service.clone()).or_default().insert(name.clone());
                self.slices.by_name.insert(name.clone(), facts);
            }
            None => {
                self.slices.by_name.remove(&name);
            }
        }
        let stay = self.slices.pods.get(&name).cloned().unwrap_or_default();
        self.refresh_slice(&name, changes);
        for pod in stay {
            self.refresh_pod(&pod, changes);
        }
    }

    pub(super) fn refresh_slices_of(&mut self, service: &NamespacedName, changes: &mut Changes) {
        let slices: Vec<_> = self.slices.by_service.get(service).into_iter().flatten().cloned().collect();
        for slice in slices {
            self.refresh_slice(&slice, changes);
        }
    }

    /// Updates the index after addresses of a pod changed.
    pub(super) fn move_pod(
        &mut self,
        name: &NamespacedName,
        old: Vec<IpAddr>,
        new: Vec<IpAddr>,
        changes: &mut Changes,
    ) {
        if old == new {
            return;
        }
        self.slices.move_pod(name, &old, &new);
        self.refresh_slices_at(&[old, new].concat(), changes);
    }

    /// Updates all slices that contain one of the addresses, after the pod behind it or its
    /// waypoint changed.
    pub(super) fn refresh_slices_at(&mut self, addresses: &[IpAddr], changes: &mut Changes) {
        for slice in self.slices.at(addresses) {
            self.refresh_slice(&slice, changes);
        }
    }

    pub(super) fn refresh_slice(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let ResolvedSlice { pods, workloads } =
            self.slices.by_name.get(name).map(|slice| self.read(slice)).unwrap_or_default();
        self.replace_workloads(name, workloads, changes);
        let old = match pods.is_empty() {
            true => self.slices.pods.remove(name),
            false => self.slices.pods.insert(name.clone(), pods.clone()),
        };
        let old = old.unwrap_or_default();
        for pod in old.difference(&pods) {
            remove_from(&mut self.slices.by_pod, pod, name);
        }
        for pod in &pods {
            self.slices.by_pod.entry(pod.clone()).or_default().insert(name.clone());
        }
        for pod in old.symmetric_difference(&pods) {
            self.refresh_pod(pod, changes);
        }
    }

    fn replace_workloads(&mut self, name: &NamespacedName, new: Vec<Workload>, changes: &mut Changes) {
        let old = self.slices.workloads.remove(name).unwrap_or_default();
        for workload in old.iter().chain(&new) {
            let known = old.iter().find(|old| old.uid == workload.uid);
            let services = known.into_iter().flat_map(|old| old.services.keys());
            let now = new.iter().find(|new| new.uid == workload.uid);
            let now = now.into_iter().flat_map(|new| new.services.keys());
            self.refresh_services_of(&workload.uid, services, now);
        }
        for gone in old.iter().filter(|old| !new.iter().any(|new| new.uid == old.uid)) {
            self.other_workloads.remove(&gone.uid);
            changes.workloads.insert(gone.uid.clone());
        }
        for workload in &new {
            if self.other_workloads.get(&workload.uid).map(Arc::as_ref) != Some(workload) {
                self.other_workloads.insert(workload.uid.clone(), Arc::new(workload.clone()));
                changes.workloads.insert(workload.uid.clone());
            }
        }
        if !new.is_empty() {
            self.slices.workloads.insert(name.clone(), new);
        }
    }

    fn read(&self, slice: &SliceFacts) -> ResolvedSlice {
        let Some(service) = self.services.get(&slice.service).filter(|s| s.selector.is_empty()) else {
            return ResolvedSlice::default();
        };
        let (mut found, mut seen) = (ResolvedSlice::default(), BTreeSet::new());
        for endpoint in &slice.endpoints {
            let own = self.own_pods(slice, endpoint);
            // An endpoint that claims to be a pod of its namespace is that pod, or will be once the
            // pod has the address.
            let is_pod = !own.is_empty() || endpoint.pod.is_some();
            found.pods.extend(own);
            for address in endpoint.addresses.iter().filter(|address| !is_pod && seen.insert(**address)) {
                let pod = self.foreign_pod(slice, *address);
                found.workloads.push(slice.workload(
                    Listed { endpoint, address: *address },
                    pod.as_ref(),
                    service,
                    &self.settings,
                ));
            }
        }
        found
    }

    /// The pods of the slice's namespace that an endpoint represents: the referenced pod if it has
    /// one of the addresses, otherwise the pods that have them. A pod on the host network shares
    /// its address and must be referenced.
    fn own_pods(&self, slice: &SliceFacts, endpoint: &EndpointFacts) -> BTreeSet<NamespacedName> {
        let at = endpoint.addresses.iter().filter_map(|address| self.slices.pods_by_address.get(address));
        let own = at.flatten().filter(|pod| pod.namespace == slice.name.namespace);
        let own: BTreeSet<_> = own.cloned().collect();
        match endpoint.pod.as_ref().filter(|named| own.contains(*named)) {
            Some(named) => BTreeSet::from([named.clone()]),
            None => own.into_iter().filter(|pod| !self.is_on_host_network(pod)).collect(),
        }
    }

    /// The pod of another namespace with this address, and how to reach it at the ports of the
    /// slice.
    fn foreign_pod(&self, slice: &SliceFacts, address: IpAddr) -> Option<Workload> {
        let pods = self.slices.pods_by_address.get(&address)?;
        let pod = pods.iter().find(|pod| !self.is_on_host_network(pod))?;
        let workload = self.pods.get(pod)?.workload.as_deref()?;
        let waypoint = self.waypoint_to(workload, slice);
        Some(Workload { waypoint, ..workload.clone() })
    }

    /// The waypoint of a service that maps to a port of the slice, otherwise the pod's own
    /// waypoint.
    fn waypoint_to(&self, workload: &Workload, slice: &SliceFacts) -> Option<GatewayAddress> {
        let leading = workload
            .services
            .iter()
            .filter(|(_, ports)| ports.iter().any(|port| slice.leads_to(port.target_port)));
        let mut of_services = leading.filter_map(|(key, _)| self.service(key)?.waypoint.clone());
        of_services.next().or_else(|| workload.waypoint.clone())
    }

    /// Addresses of the pods of a service.
    pub(super) fn endpoint_addresses(&self, service: &NamespacedName) -> Vec<IpAddr> {
        let Some(service) = self.services.get(service) else { return Vec::new() };
        let uids = self.layer7.workloads_by_service.get(&service.model.key()).into_iter().flatten();
        uids.filter_map(|uid| self.workload(uid)).flat_map(|workload| workload.addresses.clone()).collect()
    }

    fn is_on_host_network(&self, pod: &NamespacedName) -> bool {
        self.pods.get(pod).is_some_and(|pod| pod.facts.host_network)
    }
}

/// The addresses at which a pod may be an endpoint.
pub(super) fn addresses(pod: &PodFacts) -> Vec<IpAddr> {
    if pod.is_endpoint() { pod.ips.clone() } else { Vec::new() }
}
