//! The slices that the index knows, and which pods have which address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ambit_model::NamespacedName;

use super::maps::remove_from;
use crate::slices::SliceFacts;

/// What the index knows of EndpointSlices and of the owners of addresses.
#[derive(Debug, Default)]
pub(super) struct Slices {
    pub(super) by_name: BTreeMap<NamespacedName, SliceFacts>,
    pub(super) by_pod: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    pub(super) by_service: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    pub(super) by_address: HashMap<IpAddr, BTreeSet<NamespacedName>>,
    /// Pods that are endpoints of a slice.
    pub(super) pods: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Uids of the endpoints of a slice that are not pods of its namespace.
    pub(super) workloads: HashMap<NamespacedName, BTreeSet<Arc<str>>>,
    pub(super) pods_by_address: HashMap<IpAddr, BTreeSet<NamespacedName>>,
}

impl Slices {
    /// The slices that contain a pod.
    pub(super) fn of_pod(&self, pod: &NamespacedName) -> impl Iterator<Item = &SliceFacts> {
        let names = self.by_pod.get(pod).into_iter().flatten();
        names.filter_map(|name| self.by_name.get(name))
    }

    pub(super) fn move_pod(&mut self, name: &NamespacedName, old: &[IpAddr], new: &[IpAddr]) {
        old.iter().for_each(|address| remove_from(&mut self.pods_by_address, address, name));
        for address in new {
            self.pods_by_address.entry(*address).or_default().insert(name.clone());
        }
    }

    pub(super) fn at(&self, addresses: &[IpAddr]) -> BTreeSet<NamespacedName> {
        let named = addresses.iter().filter_map(|address| self.by_address.get(address));
        named.flatten().cloned().collect()
    }
}
