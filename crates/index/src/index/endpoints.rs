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
    pub(super) fn set_slice(&mut self, name: NamespacedName, facts: Option<SliceFacts>) {
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
        // Pods that stay endpoints may serve other ports.
        let pods = self.slices.pods.get(&name).into_iter().flatten();
        self.layer7.dirty.pods.extend(pods.cloned());
        self.layer7.dirty.slices.insert(name);
    }

    /// Marks the slices of a Service and their pods.
    pub(super) fn mark_slices_of(&mut self, service: &NamespacedName) {
        let slices = self.slices.by_service.get(service).into_iter().flatten();
        for slice in slices {
            self.layer7.dirty.pods.extend(self.slices.pods.get(slice).into_iter().flatten().cloned());
            self.layer7.dirty.slices.insert(slice.clone());
        }
    }

    /// Updates the index after addresses of a pod changed.
    pub(super) fn move_pod(&mut self, name: &NamespacedName, old: Vec<IpAddr>, new: Vec<IpAddr>) {
        if old == new {
            return;
        }
        self.slices.move_pod(name, &old, &new);
        self.mark_slices_at(&[old, new].concat());
    }

    /// Marks all slices that contain one of the addresses, after the pod behind it or its waypoint changed.
    pub(super) fn mark_slices_at(&mut self, addresses: &[IpAddr]) {
        self.layer7.dirty.slices.extend(self.slices.at(addresses));
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
        self.layer7.dirty.pods.extend(old.symmetric_difference(&pods).cloned());
    }

    fn replace_workloads(&mut self, name: &NamespacedName, new: Vec<Workload>, changes: &mut Changes) {
        let old = self.slices.workloads.remove(name).unwrap_or_default();
        let now: BTreeSet<Arc<str>> = new.iter().map(|workload| workload.uid.clone()).collect();
        for gone in old.into_iter().filter(|uid| !now.contains(uid)) {
            let old = self.other_workloads.remove(&gone);
            self.note_endpoint(old.as_ref(), None);
            changes.workloads.insert(gone);
        }
        for workload in new {
            if self.other_workloads.get(&workload.uid).map(Arc::as_ref) == Some(&workload) {
                continue;
            }
            let (uid, new) = (workload.uid.clone(), Arc::new(workload));
            let old = self.other_workloads.insert(uid.clone(), new.clone());
            self.note_endpoint(old.as_ref(), Some(&new));
            changes.workloads.insert(uid);
        }
        if !now.is_empty() {
            self.slices.workloads.insert(name.clone(), now);
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
