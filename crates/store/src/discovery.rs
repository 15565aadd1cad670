//! Feeds a [`Store`] from xDS.
//!
//! Invariant: the store receives a type only once its initial state is complete, because a partial
//! set of addresses or policies leads to different decisions. A policy that cannot be decoded
//! denies wherever it may apply, and a bound service that cannot be decoded is refused.

mod bound;
mod intake;

use std::sync::Arc;

use ambit_model::{Action, NamespacedName, Policy};
use ambit_proto::{ADDRESS, AUTHORIZATION};
use ambit_wds::{UnreadablePolicy, unpack_policy};
use ambit_xds::{Handler, Rejection, Resource};

use crate::store::{AddressUpdate, PolicyUpdate, Store};
use intake::{Intake, not_used, rejection};

pub use bound::BoundDiscovery;

/// Handles the subscriptions of a node proxy.
#[derive(Debug)]
pub struct Discovery {
    store: Arc<Store>,
    addresses: Intake<AddressUpdate>,
    policies: Intake<PolicyUpdate>,
}

impl Discovery {
    /// Types to subscribe to: policies before the workloads that reference them.
    pub const TYPES: [&'static str; 2] = [AUTHORIZATION, ADDRESS];

    /// A handler that feeds `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, addresses: Intake::new(), policies: Intake::new() }
    }

    fn publish_policies(&mut self) {
        if let Some((changed, removed)) = self.policies.take() {
            let removed: Vec<_> = removed.iter().map(|name| key(name)).collect();
            self.store.apply_policies(changed, &removed);
        }
    }

    fn take_policies(&mut self, resources: Vec<Resource>) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for Resource { name, bytes, .. } in resources {
            let update = match unpack_policy(&name, &bytes) {
                Ok(policy) => PolicyUpdate::Readable(policy),
                Err(unreadable) => {
                    let error = &unreadable.error;
                    tracing::warn!(policy = %name, %error, scope = ?unreadable.scope, "Policy cannot be decoded and denies in its whole scope");
                    rejections.push(rejection(name.clone(), error));
                    stand_in(&name, &unreadable)
                }
            };
            self.policies.change(name, update);
        }
        rejections
    }
}

impl Handler for Discovery {
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        match type_url {
            ADDRESS => self.addresses.take_addresses(&self.store, resources, removed),
            AUTHORIZATION => {
                let rejections = self.take_policies(resources);
                self.policies.remove(removed);
                self.publish_policies();
                rejections
            }
            other => not_used(other, resources),
        }
    }

    fn complete(&mut self, type_url: &str) {
        match type_url {
            ADDRESS if self.addresses.complete() => self.addresses.publish_addresses(&self.store),
            AUTHORIZATION if self.policies.complete() => self.publish_policies(),
            _ => {}
        }
    }
}

/// The replacement for a policy that could not be decoded: a denial, or nothing if it was not to be
/// enforced.
fn stand_in(name: &str, unreadable: &UnreadablePolicy) -> PolicyUpdate {
    let (key, scope) = (key(name), unreadable.scope);
    if unreadable.dry_run {
        PolicyUpdate::Readable(Policy { key, scope, action: Action::Deny, rules: Vec::new(), dry_run: true })
    } else {
        PolicyUpdate::Unreadable(key, scope)
    }
}

/// A name without a namespace is kept whole, so that its removal finds the same key.
fn key(name: &str) -> NamespacedName {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    NamespacedName::new(namespace, name)
}

#[cfg(test)]
mod tests {
    use ambit_model::{Scope, Service, Verdict, Workload};
    use ambit_wds::{Packed, pack_policy, pack_service, pack_workload};

    use super::*;

    fn resource(packed: Packed) -> Resource {
        Resource { name: packed.name.to_string(), version: "1".into(), bytes: packed.body }
    }

    fn broken(name: &str) -> Resource {
        Resource { name: name.into(), version: "1".into(), bytes: vec![0xff].into() }
    }

    fn workload(name: &str) -> Workload {
        Workload {
            uid: format!("Kubernetes//Pod/shop/{name}").into(),
            name: name.into(),
            namespace: "shop".into(),
            trust_domain: "cluster.local".into(),
            service_account: "default".into(),
            cluster_id: "Kubernetes".into(),
            capacity: 1,
            ..Workload::default()
        }
    }

    fn policy(name: &str) -> Policy {
        Policy {
            key: NamespacedName::new("shop", name),
            scope: Scope::Namespace,
            action: Action::Allow,
            rules: vec![],
            dry_run: false,
        }
    }

    fn verdict(store: &Store) -> Verdict {
        let ip = std::net::IpAddr::from([10, 0, 0, 1]);
        let connection =
            ambit_model::Connection { source: None, source_ip: ip, destination_ip: ip, destination_port: 80 };
        store.snapshot().policies_for(&workload("a")).evaluate(&connection)
    }

    #[test]
    fn nothing_counts_as_known_before_the_initial_state_is_complete() {
        let store = Arc::new(Store::new());
        let mut discovery = Discovery::new(store.clone());
        discovery.apply(AUTHORIZATION, vec![], vec![]);
        discovery.apply(ADDRESS, vec![resource(pack_workload(&workload("a")))], vec![]);
        discovery.apply(
            ADDRESS,
            vec![resource(pack_workload(&workload("b")))],
            vec!["Kubernetes//Pod/shop/a".into()],
        );
        assert_eq!(verdict(&store), Verdict::PoliciesNotReceived);
        assert_eq!(store.snapshot().generation(), 0);
        discovery.complete(AUTHORIZATION);
        assert_eq!(verdict(&store), Verdict::AllowedByDefault);
        assert!(!store.synced());
        discovery.complete(ADDRESS);
        assert!(store.synced());
        let names: Vec<String> = store.snapshot().workloads().map(|w| w.name.to_string()).collect();
        assert_eq!(names, ["b"]);
    }

    fn complete(store: &Arc<Store>) -> Discovery {
        let mut discovery = Discovery::new(store.clone());
        Discovery::TYPES.iter().for_each(|type_url| discovery.complete(type_url));
        discovery
    }

    #[test]
    fn a_refused_address_leaves_what_was_known_and_the_rest_is_applied() {
        let store = Arc::new(Store::new());
        let mut discovery = complete(&store);
        let service = Service { namespace: "shop".into(), hostname: "h".into(), ..Service::default() };
        discovery.apply(ADDRESS, vec![resource(pack_workload(&workload("a")))], vec![]);
        let given = vec![broken("Kubernetes//Pod/shop/a"), resource(pack_service(&service))];
        let rejections = discovery.apply(ADDRESS, given, vec![]);
        assert_eq!(rejections.len(), 1);
        assert_eq!(rejections[0].name, "Kubernetes//Pod/shop/a");
        let snapshot = store.snapshot();
        assert!(snapshot.workload_by_uid("Kubernetes//Pod/shop/a").is_some());
        assert!(snapshot.service(&service.key()).is_some());
        discovery.apply(ADDRESS, vec![], vec!["shop/h".into(), "Kubernetes//Pod/shop/a".into()]);
        assert_eq!((store.snapshot().workloads().count(), store.snapshot().services().count()), (0, 0));
    }

    #[test]
    fn a_refused_policy_denies_until_it_is_repaired_or_removed() {
        let store = Arc::new(Store::new());
        let mut discovery = complete(&store);
        for name in ["shop/p", "nameless"] {
            let rejections = discovery.apply(AUTHORIZATION, vec![broken(name)], vec![]);
            assert_eq!(rejections[0].name, name);
            assert!(matches!(verdict(&store), Verdict::UnreadablePolicy(_)), "{name}");
            discovery.apply(AUTHORIZATION, vec![], vec![name.into()]);
            assert_eq!(verdict(&store), Verdict::AllowedByDefault, "{name}");
        }
        discovery.apply(AUTHORIZATION, vec![broken("shop/p")], vec![]);
        discovery.apply(AUTHORIZATION, vec![resource(pack_policy(&policy("p")))], vec![]);
        assert_eq!(verdict(&store), Verdict::NotAllowed);
    }

    #[test]
    fn a_refused_policy_that_asked_not_to_be_enforced_denies_nothing() {
        let store = Arc::new(Store::new());
        let mut discovery = complete(&store);
        let packed = pack_policy(&Policy { dry_run: true, ..policy("p") });
        let misnamed = Resource { name: "shop/q".into(), ..resource(packed) };
        assert_eq!(discovery.apply(AUTHORIZATION, vec![misnamed], vec![]).len(), 1);
        assert_eq!(verdict(&store), Verdict::AllowedByDefault);
    }
}
