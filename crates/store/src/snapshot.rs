//! One consistent view of the mesh, immutable once published.
//!
//! Invariant: all indexes refer to the same objects. A workload that shares its node's address is
//! in no address index. Snapshots are persistent maps: copying one is cheap, and the cost of an
//! update is proportional to the change.

use std::sync::Arc;

use ambit_model::{NamespacedName, NetworkAddress, Service, Workload, authorization::PolicySet};
use imbl::{HashMap, OrdSet};

use crate::{
    balance::{Endpoints, ServiceEntry},
    bound::{Bound, BoundEntry},
    policies::Policies,
    ranges::Ranges,
};

/// The proxy's view of the mesh at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) addresses_received: bool,
    pub(crate) workloads: HashMap<Arc<str>, Arc<Workload>>,
    /// In order of preference, see [`crate::apply`].
    pub(crate) by_address: HashMap<NetworkAddress, Vec<Arc<Workload>>>,
    pub(crate) by_name: HashMap<NamespacedName, Vec<Arc<Workload>>>,
    pub(crate) services: HashMap<NamespacedName, Arc<ServiceEntry>>,
    pub(crate) by_vip: HashMap<NetworkAddress, OrdSet<NamespacedName>>,
    pub(crate) ranges: Ranges,
    pub(crate) policies: Arc<Policies>,
    pub(crate) bound: Arc<Bound>,
}

impl Snapshot {
    /// Sequence number of the published snapshots.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether both addresses and policies have been received, which a node proxy needs.
    pub fn synced(&self) -> bool {
        self.addresses_received && self.policies.received()
    }

    /// Whether both addresses and bound services have been received, which a waypoint needs.
    pub fn bound_synced(&self) -> bool {
        self.addresses_received && self.bound.received()
    }

    /// A service bound to this waypoint; `None` if it is not bound to it.
    pub fn bound(&self, key: &NamespacedName) -> Option<&BoundEntry> {
        self.bound.get(key)
    }

    /// All services bound to this waypoint, in no particular order.
    pub fn bound_services(&self) -> impl Iterator<Item = (&NamespacedName, &BoundEntry)> {
        self.bound.iter()
    }

    /// The endpoints of a service among which `waypoint` selects for its clients. For a node-local
    /// service ([`Service::is_node_local`]) the caller must keep only those on the client's node.
    /// The same object (`Arc::ptr_eq`) as from an earlier snapshot while neither the service nor
    /// its endpoints changed. `None` for an unknown service.
    pub fn endpoints(&self, key: &NamespacedName, waypoint: &Workload) -> Option<Arc<Endpoints>> {
        let entry = self.services.get(key)?;
        Some(entry.view_for_clients_of(entry.service.as_ref()?, waypoint))
    }

    /// The workload with this uid (`<cluster>//Pod/<namespace>/<name>`).
    pub fn workload_by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload with this address; if several claim it, a tunnelled pod. Never one that shares
    /// its node's address.
    pub fn workload_by_address(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.by_address.get(address)?.first()
    }

    /// Whether this address is unknown but may belong to a pod or service.
    pub fn is_unknown(&self, address: &NetworkAddress) -> bool {
        !self.by_address.contains_key(address)
            && !self.by_vip.contains_key(address)
            && self.ranges.may_hold(address)
    }

    /// The workload of the pod with this namespace and name.
    pub fn workload_by_name(&self, name: &NamespacedName) -> Option<&Arc<Workload>> {
        self.by_name.get(name)?.first()
    }

    /// The service with this virtual address, for a client in `namespace`: its own namespace's,
    /// otherwise the canonical one, otherwise the first by name.
    pub fn service_by_vip(&self, vip: &NetworkAddress, namespace: &str) -> Option<&Arc<Service>> {
        self.entry_by_vip(vip, namespace)?.service.as_ref()
    }

    /// The service with this key (`namespace/hostname`).
    pub fn service(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        self.services.get(key)?.service.as_ref()
    }

    /// The policies for connections to `workload`. The same object (`Arc::ptr_eq`) as from an
    /// earlier snapshot exactly when the same policies apply; then nothing needs to be evaluated
    /// again.
    pub fn policies_for(&self, workload: &Workload) -> Arc<PolicySet> {
        self.policies.for_workload(workload)
    }

    /// All workloads, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter_map(|entry| entry.service.as_ref())
    }

    pub(crate) fn entry_by_vip(&self, vip: &NetworkAddress, namespace: &str) -> Option<&Arc<ServiceEntry>> {
        let known = || {
            let keys = self.by_vip.get(vip)?;
            Some(keys.iter().filter_map(|key| self.services.get(key)))
        };
        let preference = |entry: &&Arc<ServiceEntry>| {
            let service = entry.service.as_ref();
            (
                service.is_some_and(|service| &*service.namespace == namespace),
                service.is_some_and(|service| service.canonical),
            )
        };
        // `max_by_key` would return the last of equal entries.
        known()?.reduce(|best, entry| if preference(&entry) > preference(&best) { entry } else { best })
    }
}
