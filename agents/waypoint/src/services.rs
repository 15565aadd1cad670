//! The services that are bound to this waypoint, compiled for use.
//!
//! Invariant: a service is compiled once per change, outside the threads that carry requests, and is replaced as a whole; a
//! request keeps the version that it began with.

use std::{collections::HashMap, sync::Arc};

use ambit_model::{NamespacedName, Workload, bound::PODS};
use ambit_store::{BoundEntry, Snapshot, Store};
use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::service::{Service, States};

/// The services bound here at one moment.
#[derive(Debug, Default)]
pub struct Bound {
    /// Increases with every change.
    pub generation: u64,
    /// The operator has sent the complete list once.
    pub synced: bool,
    services: HashMap<NamespacedName, Arc<Service>>,
}

impl Bound {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.services.len()
    }

    /// The service with this key (`namespace/hostname`).
    pub fn get(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        self.services.get(key)
    }
}

impl Bound {
    /// The policies for traffic addressed to pods of a namespace.
    pub fn pods(&self, namespace: &Arc<str>) -> Option<&Arc<Service>> {
        self.get(&NamespacedName::new(namespace.clone(), PODS))
    }

    /// The service of a hostname, preferably in the client's namespace.
    pub fn by_hostname(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        let mut named = self
            .services
            .iter()
            .filter(|(key, _)| &*key.name == hostname && hostname != PODS)
            .collect::<Vec<_>>();
        // Independent of the order in the map.
        named.sort_by_key(|(key, _)| (&*key.namespace != namespace, *key));
        named.first().map(|(_, service)| *service)
    }
}

/// The current services, and a notification for each change.
#[derive(Debug)]
pub struct Services {
    current: ArcSwap<Bound>,
    generation: watch::Sender<u64>,
}

impl Default for Services {
    fn default() -> Self {
        Self { current: ArcSwap::default(), generation: watch::Sender::new(0) }
    }
}

impl Services {
    /// The current services, for use before the next `await`. Takes no lock.
    pub fn load(&self) -> Guard<Arc<Bound>> {
        self.current.load()
    }

    /// Changes whenever a service is added, replaced or removed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Follows the store for as long as it lives; `pod` is the waypoint's own.
    pub async fn follow(&self, store: &Store, pod: &NamespacedName) {
        let mut changes = store.changes();
        let mut states = States::default();
        loop {
            changes.mark_unchanged();
            self.refresh(&store.load(), pod, &mut states);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn refresh(&self, snapshot: &Snapshot, pod: &NamespacedName, states: &mut States) {
        let before = self.load();
        let synced = before.synced || snapshot.bound_synced();
        let mut changed = before.synced != synced;
        let mut services = HashMap::new();
        for (key, entry) in snapshot.bound_services() {
            let kept = before.get(key).filter(|service| is_made_of(service, entry)).cloned();
            changed |= kept.is_none();
            let service = kept.unwrap_or_else(|| compile(key, entry, states));
            services.insert(key.clone(), service);
        }
        changed |= services.len() != before.services.len();
        let own = snapshot.workload_by_name(pod);
        states.follow(snapshot, own.map_or(&Workload::default(), AsRef::as_ref));
        if !changed {
            return;
        }
        let generation = before.generation.wrapping_add(1);
        self.current.store(Arc::new(Bound { generation, synced, services }));
        drop(before);
        states.sweep();
        self.generation.send_replace(generation);
    }
}

fn is_made_of(service: &Service, entry: &BoundEntry) -> bool {
    match entry {
        BoundEntry::Ready(bound) => Arc::ptr_eq(&service.bound, bound),
        BoundEntry::Unreadable(reason) => {
            service.is_unreadable()
                && service.bound.unenforceable.iter().any(|(_, known)| Arc::ptr_eq(known, reason))
        }
    }
}

fn compile(key: &NamespacedName, entry: &BoundEntry, states: &mut States) -> Arc<Service> {
    Arc::new(match entry {
        BoundEntry::Ready(bound) => {
            tracing::debug!(service = %key, "Service is bound or changed");
            Service::compile(bound.clone(), states)
        }
        BoundEntry::Unreadable(reason) => Service::unreadable(key, reason),
    })
}
