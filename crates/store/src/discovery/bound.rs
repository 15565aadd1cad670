//! The subscriptions of a waypoint: every address, and its bound services.
//!
//! Invariant: a bound service that cannot be decoded replaces its earlier version, which may allow
//! what the new one forbids.

use std::sync::Arc;

use ambit_model::NamespacedName;
use ambit_proto::{ADDRESS, BOUND_SERVICE};
use ambit_wds::unpack_bound_service;
use ambit_xds::{Handler, Rejection, Resource};

use super::{
    intake::{Intake, not_used, rejection},
    key,
};
use crate::{
    bound::BoundEntry,
    store::{AddressUpdate, Store},
};

/// Handles the subscriptions of a waypoint.
#[derive(Debug)]
pub struct BoundDiscovery {
    store: Arc<Store>,
    addresses: Intake<AddressUpdate>,
    bound: Intake<(NamespacedName, BoundEntry)>,
}

impl BoundDiscovery {
    /// Types to subscribe to.
    pub const TYPES: [&'static str; 2] = [ADDRESS, BOUND_SERVICE];

    /// A handler that feeds `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, addresses: Intake::new(), bound: Intake::new() }
    }

    fn publish_bound(&mut self) {
        if let Some((changed, removed)) = self.bound.take() {
            let removed: Vec<_> = removed.iter().map(|name| key(name)).collect();
            self.store.apply_bound(changed, &removed);
        }
    }

    fn take_bound(&mut self, resources: Vec<Resource>) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for Resource { name, bytes, .. } in resources {
            let entry = match unpack_bound_service(&name, &bytes) {
                Ok(service) => BoundEntry::Ready(Arc::new(service)),
                Err(error) => {
                    tracing::warn!(service = %name, %error, "Bound service cannot be decoded; its traffic is refused");
                    rejections.push(rejection(name.clone(), &error));
                    BoundEntry::Unreadable(error.to_string().into())
                }
            };
            let key = key(&name);
            self.bound.change(name, (key, entry));
        }
        rejections
    }
}

impl Handler for BoundDiscovery {
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        match type_url {
            ADDRESS => self.addresses.take_addresses(&self.store, resources, removed),
            BOUND_SERVICE => {
                let rejections = self.take_bound(resources);
                self.bound.remove(removed);
                self.publish_bound();
                rejections
            }
            other => not_used(other, resources),
        }
    }

    fn complete(&mut self, type_url: &str) {
        match type_url {
            ADDRESS if self.addresses.complete() => self.addresses.publish_addresses(&self.store),
            BOUND_SERVICE if self.bound.complete() => self.publish_bound(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ambit_model::{Addressed, BoundService, bound::RequestPolicy};
    use ambit_wds::pack_bound_service;

    use super::*;

    fn service(burst: u32) -> BoundService {
        let limit = ambit_model::bound::RateLimit {
            scope: ambit_model::bound::RateLimitScope::Service,
            requests: 1,
            interval: std::time::Duration::from_secs(1),
            burst,
        };
        BoundService {
            key: NamespacedName::new("shop", "cart"),
            addressed: Addressed::Service,
            ports: vec![],
            destinations: BTreeMap::new(),
            requests: Arc::new(RequestPolicy { faults: vec![], rate_limits: vec![limit] }),
            authentication: vec![],
            authorization: vec![],
            checks: Vec::new(),
            unenforceable: vec![],
        }
    }

    fn resource(burst: u32) -> Resource {
        let packed = pack_bound_service(&service(burst));
        Resource { name: packed.name.to_string(), version: "1".into(), bytes: packed.body }
    }

    fn entry(store: &Store) -> Option<BoundEntry> {
        store.load().bound(&NamespacedName::new("shop", "cart")).cloned()
    }

    fn ready(store: &Store) -> Arc<BoundService> {
        match entry(store) {
            Some(BoundEntry::Ready(service)) => service,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_service_is_bound_before_all_are_known() {
        let store = Arc::new(Store::new());
        let changes = store.bound_changes();
        let mut discovery = BoundDiscovery::new(store.clone());
        discovery.apply(BOUND_SERVICE, vec![resource(1)], vec![]);
        assert_eq!((entry(&store), changes.has_changed().unwrap()), (None, false));
        discovery.complete(BOUND_SERVICE);
        assert!(changes.has_changed().unwrap());
        assert_eq!(*ready(&store), service(1));
        assert!(!store.load().bound_synced());
        discovery.complete(ADDRESS);
        assert!(store.load().bound_synced());
    }

    fn complete(store: &Arc<Store>) -> BoundDiscovery {
        let mut discovery = BoundDiscovery::new(store.clone());
        BoundDiscovery::TYPES.iter().for_each(|type_url| discovery.complete(type_url));
        discovery
    }

    #[test]
    fn a_service_that_cannot_be_read_replaces_the_one_that_could_until_it_is_repaired_or_unbound() {
        let store = Arc::new(Store::new());
        let mut discovery = complete(&store);
        discovery.apply(BOUND_SERVICE, vec![resource(1)], vec![]);
        // Many empty resources at once are rejected.
        let rejections = discovery.apply(BOUND_SERVICE, vec![resource(0)], vec![]);
        assert_eq!(rejections[0].name, "shop/cart");
        assert!(rejections[0].reason.contains("burst"), "{rejections:?}");
        assert!(matches!(entry(&store), Some(BoundEntry::Unreadable(reason)) if reason.contains("burst")));
        discovery.apply(BOUND_SERVICE, vec![resource(2)], vec![]);
        assert_eq!(*ready(&store), service(2));
        discovery.apply(BOUND_SERVICE, vec![], vec!["shop/cart".into()]);
        assert_eq!(entry(&store), None);
    }

    #[test]
    fn a_service_that_comes_again_unchanged_is_the_same_object_and_no_news() {
        let store = Arc::new(Store::new());
        let mut discovery = complete(&store);
        discovery.apply(BOUND_SERVICE, vec![resource(1)], vec![]);
        let (before, changes) = (ready(&store), store.bound_changes());
        discovery.apply(BOUND_SERVICE, vec![resource(1)], vec!["shop/other".into()]);
        discovery.apply(ADDRESS, vec![], vec![]);
        assert!(Arc::ptr_eq(&before, &ready(&store)) && !changes.has_changed().unwrap());
        discovery.apply(BOUND_SERVICE, vec![resource(2)], vec![]);
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn a_type_nobody_asked_for_is_refused() {
        let mut discovery = complete(&Arc::new(Store::new()));
        let rejections = discovery.apply(ambit_proto::AUTHORIZATION, vec![resource(1)], vec![]);
        assert_eq!(rejections.len(), 1);
    }
}
