//! Discovery responses that have not been applied yet.
//!
//! Invariant: nothing is returned before the initial state of its type is complete.

use std::{collections::BTreeMap, sync::Arc};

use ambit_wds::{DecodeError, Decoded, unpack_address};
use ambit_xds::{Rejection, Resource};

use crate::store::{AddressUpdate, Store};

/// Resources of one type by name, `None` for a removal; kept until the initial state is complete.
#[derive(Debug)]
pub(super) struct Intake<T> {
    complete: bool,
    pending: BTreeMap<Arc<str>, Option<T>>,
}

impl<T> Intake<T> {
    pub(super) fn new() -> Self {
        Self { complete: false, pending: BTreeMap::new() }
    }

    pub(super) fn change(&mut self, name: String, update: T) {
        self.pending.insert(name.into(), Some(update));
    }

    pub(super) fn remove(&mut self, names: Vec<String>) {
        self.pending.extend(names.into_iter().map(|name| (name.into(), None)));
    }

    /// Marks the initial state as complete. Returns whether it was not before.
    pub(super) fn complete(&mut self) -> bool {
        !std::mem::replace(&mut self.complete, true)
    }

    /// Takes what to apply now: changed resources, and removed names.
    pub(super) fn take(&mut self) -> Option<(Vec<T>, Vec<Arc<str>>)> {
        if !self.complete {
            return None;
        }
        let (mut changed, mut removed) = (Vec::with_capacity(self.pending.len()), Vec::new());
        for (name, update) in std::mem::take(&mut self.pending) {
            match update {
                Some(update) => changed.push(update),
                None => removed.push(name),
            }
        }
        Some((changed, removed))
    }
}

impl Intake<AddressUpdate> {
    /// Takes one response about addresses. Where a resource is rejected, its earlier version stays
    /// in force.
    pub(super) fn take_addresses(
        &mut self,
        store: &Store,
        resources: Vec<Resource>,
        removed: Vec<String>,
    ) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for Resource { name, bytes, .. } in resources {
            match unpack_address(&name, &bytes) {
                Ok(Decoded::Workload(workload)) => self.change(name, AddressUpdate::Workload(workload)),
                Ok(Decoded::Service(service)) => self.change(name, AddressUpdate::Service(service)),
                Err(error) => {
                    tracing::warn!(resource = %name, %error, "Refused an address");
                    rejections.push(rejection(name, &error));
                }
            }
        }
        self.remove(removed);
        self.publish_addresses(store);
        rejections
    }

    pub(super) fn publish_addresses(&mut self, store: &Store) {
        if let Some((changed, removed)) = self.take() {
            store.apply_addresses(changed, &removed);
        }
    }
}

pub(super) fn rejection(name: String, error: &DecodeError) -> Rejection {
    Rejection { name, reason: format!("{}: {}", error.field, error.reason) }
}

/// Rejects resources of a type without a subscription.
pub(super) fn not_used(type_url: &str, resources: Vec<Resource>) -> Vec<Rejection> {
    resources
        .into_iter()
        .map(|resource| Rejection { name: resource.name, reason: format!("{type_url} is not used here") })
        .collect()
}
