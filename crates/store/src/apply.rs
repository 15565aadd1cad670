//! How one update changes the next snapshot before it is published.
//!
//! Invariant: `insert` and `remove` walk the same stored object, so `remove` deletes exactly the
//! index entries that `insert` added, and no order of updates leaves a stale entry.

use std::{collections::BTreeSet, hash::Hash, net::IpAddr, sync::Arc};

use ambit_model::{NamespacedName, NetworkAddress, NetworkMode, Service, TunnelProtocol, Workload};
use imbl::HashMap;

use crate::{balance::ServiceEntry, snapshot::Snapshot};

/// Whether live connections to a workload must be evaluated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Stands,
    Changed,
}

impl Snapshot {
    /// Adds a workload, or replaces the one with its uid.
    pub(crate) fn insert_workload(&mut self, workload: Workload) -> Judgement {
        let judgement = match self.workloads.get(&workload.uid) {
            Some(old) if **old == workload => return Judgement::Stands,
            Some(old) if old.authorization_policies != workload.authorization_policies => Judgement::Changed,
            Some(_) => Judgement::Stands,
            // It may have existed before, with connections that outlived its removal.
            None if workload.authorization_policies.is_empty() => Judgement::Stands,
            None => Judgement::Changed,
        };
        let workload = Arc::new(workload);
        if let Some(old) = self.workloads.insert(workload.uid.clone(), workload.clone()) {
            self.unlink(&old);
        }
        for address in addresses(&workload) {
            match workload.network_mode {
                NetworkMode::HostNetwork => self.ranges.enter_node(address),
                NetworkMode::Standard => {
                    self.ranges.enter(&address);
                    add_ranked(&mut self.by_address, address, &workload);
                }
            }
        }
        if let Some(name) = name(&workload) {
            add_ranked(&mut self.by_name, name, &workload);
        }
        for key in workload.services.keys() {
            self.change_service(key, |entry| {
                entry.endpoints.insert(workload.uid.clone(), workload.clone());
            });
        }
        judgement
    }

    /// Adds a service, or replaces the one with its key.
    pub(crate) fn insert_service(&mut self, service: Service) {
        let key = service.key();
        if self.service(&key).is_some_and(|old| **old == service) {
            return;
        }
        self.remove_service(&key);
        for vip in &service.addresses {
            self.ranges.enter(vip);
            self.by_vip.entry(vip.clone()).or_default().insert(key.clone());
        }
        self.change_service(&key, |entry| entry.service = Some(Arc::new(service)));
    }

    /// Removes the workload with this uid. Returns whether it existed.
    pub(crate) fn remove_workload(&mut self, uid: &str) -> bool {
        let Some(old) = self.workloads.remove(uid) else { return false };
        self.unlink(&old);
        true
    }

    /// Removes the service with this key; its endpoints stay known. Returns whether it existed.
    pub(crate) fn remove_service(&mut self, key: &NamespacedName) -> bool {
        let Some(old) = self.service(key).cloned() else { return false };
        for vip in &old.addresses {
            self.ranges.leave(vip);
            if let Some(keys) = self.by_vip.get_mut(vip) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_vip.remove(vip);
                }
            }
        }
        self.change_service(key, |entry| entry.service = None);
        true
    }

    fn unlink(&mut self, old: &Workload) {
        for address in addresses(old) {
            match old.network_mode {
                NetworkMode::HostNetwork => self.ranges.leave_node(&address),
                NetworkMode::Standard => {
                    self.ranges.leave(&address);
                    remove_ranked(&mut self.by_address, &address, &old.uid);
                }
            }
        }
        if let Some(name) = name(old) {
            remove_ranked(&mut self.by_name, &name, &old.uid);
        }
        for key in old.services.keys() {
            self.change_service(key, |entry| {
                entry.endpoints.remove(&old.uid);
            });
        }
    }

    /// Changes one entry without affecting published snapshots, and drops the entry once it is
    /// empty.
    fn change_service(&mut self, key: &NamespacedName, change: impl FnOnce(&mut ServiceEntry)) {
        let shared = self.services.entry(key.clone()).or_default();
        let entry = Arc::make_mut(shared);
        change(entry);
        entry.clear_views();
        if entry.service.is_none() && entry.endpoints.is_empty() {
            self.services.remove(key);
        }
    }
}

/// The addresses of a workload, without duplicates.
fn addresses(workload: &Workload) -> BTreeSet<NetworkAddress> {
    let address =
        |ip: &IpAddr| NetworkAddress { network: workload.network.clone(), address: ip.to_canonical() };
    workload.addresses.iter().map(address).collect()
}

/// Whether it is a pod, judged by its uid only: a hand-written EndpointSlice entry may have the
/// name of a pod, and must not describe a pod that is about to start.
pub(crate) fn is_pod(workload: &Workload) -> bool {
    let path = workload.uid.split_once("//Pod/").and_then(|(_, path)| path.split_once('/'));
    path == Some((&*workload.namespace, &*workload.name))
}

fn name(workload: &Workload) -> Option<NamespacedName> {
    let name = || NamespacedName { namespace: workload.namespace.clone(), name: workload.name.clone() };
    is_pod(workload).then(name)
}

fn add_ranked<K: Hash + Eq + Clone>(
    index: &mut HashMap<K, Vec<Arc<Workload>>>,
    key: K,
    workload: &Arc<Workload>,
) {
    let workloads = index.entry(key).or_default();
    workloads.push(workload.clone());
    workloads.sort_by(|a, b| precedence(a).cmp(&precedence(b)));
}

fn remove_ranked<K: Hash + Eq + Clone>(index: &mut HashMap<K, Vec<Arc<Workload>>>, key: &K, uid: &str) {
    let Some(workloads) = index.get_mut(key) else { return };
    workloads.retain(|workload| &*workload.uid != uid);
    if workloads.is_empty() {
        index.remove(key);
    }
}

/// The order in which workloads with the same key are preferred: pods before hand-written entries,
/// then tunnelled workloads before others, then by uid, so that it does not depend on the order of
/// arrival.
fn precedence(workload: &Workload) -> (bool, bool, &str) {
    (!is_pod(workload), workload.tunnel_protocol != TunnelProtocol::Hbone, &workload.uid)
}
