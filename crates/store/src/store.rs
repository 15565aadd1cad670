//! The mutable state: applies updates in order and publishes snapshots.
//!
//! Invariant: readers never wait, and a snapshot is published before its watchers are notified.

use std::sync::{Arc, Mutex, PoisonError};

use ambit_model::{NamespacedName, Policy, Scope, Service, Workload};
use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::{apply::Judgement, bound::BoundEntry, policies::Stored, snapshot::Snapshot};

/// A new or changed workload or service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressUpdate {
    /// A workload.
    Workload(Workload),
    /// A service.
    Service(Service),
}

/// A new or changed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyUpdate {
    /// Decoded.
    Readable(Policy),
    /// Received under this name but not decodable: it denies everything in its scope.
    Unreadable(NamespacedName, Scope),
}

/// The proxy's view of the mesh, shared by all connections.
#[derive(Debug)]
pub struct Store {
    current: ArcSwap<Snapshot>,
    writer: Mutex<()>,
    generation: watch::Sender<u64>,
    judgement: watch::Sender<u64>,
    bound: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store: it routes nothing and admits nothing.
    pub fn new() -> Self {
        Self {
            current: ArcSwap::default(),
            writer: Mutex::new(()),
            generation: watch::Sender::new(0),
            judgement: watch::Sender::new(0),
            bound: watch::Sender::new(0),
        }
    }

    /// The current snapshot, for use before the next `await`. Takes no lock.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The current snapshot, for longer use.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Whether both addresses and policies have been received, which a node proxy needs.
    pub fn synced(&self) -> bool {
        self.load().synced()
    }

    /// Notified of every published snapshot; the value is its generation.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Notified when live inbound connections may have to be evaluated again, because policies or
    /// the policy list of a workload changed. Then call [`Snapshot::policies_for`] for each; with
    /// the same `Arc` the earlier verdict stands. Register a connection as live before its first
    /// evaluation, or a change in between is missed.
    pub fn judgements(&self) -> watch::Receiver<u64> {
        self.judgement.subscribe()
    }

    /// Notified when a bound service was added, changed or removed, or when they have all been
    /// received for the first time.
    pub fn bound_changes(&self) -> watch::Receiver<u64> {
        self.bound.subscribe()
    }

    /// Waits until the workload of the pod with this namespace and name is known. The caller must
    /// limit the wait.
    pub async fn workload_named(&self, name: &NamespacedName) -> Arc<Workload> {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if let Some(workload) = self.load().workload_by_name(name) {
                return workload.clone();
            }
            if changes.changed().await.is_err() {
                // Unreachable: the sender lives in `self`, which outlives this call.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Applies one response about addresses; `removed` contains uids and `namespace/hostname` keys.
    pub fn apply_addresses(&self, changed: Vec<AddressUpdate>, removed: &[Arc<str>]) {
        self.publish(|next| {
            let mut judgement = Judgement::Stands;
            for update in changed {
                match update {
                    AddressUpdate::Workload(workload) => {
                        if next.insert_workload(workload) == Judgement::Changed {
                            judgement = Judgement::Changed;
                        }
                    }
                    AddressUpdate::Service(service) => next.insert_service(service),
                }
            }
            for name in removed {
                // A uid contains slashes too, so the name alone does not distinguish the two.
                if !next.remove_workload(name)
                    && let Some((namespace, hostname)) = name.split_once('/')
                {
                    next.remove_service(&NamespacedName::new(namespace, hostname));
                }
            }
            next.addresses_received = true;
            judgement
        });
    }

    /// Applies one response about policies.
    pub fn apply_policies(&self, changed: Vec<PolicyUpdate>, removed: &[NamespacedName]) {
        let changed = changed
            .into_iter()
            .map(|update| match update {
                PolicyUpdate::Readable(policy) => (policy.key.clone(), Stored::Readable(Arc::new(policy))),
                PolicyUpdate::Unreadable(key, scope) => (key, Stored::Unreadable(scope)),
            })
            .collect();
        self.publish(|next| match next.policies.next(changed, removed) {
            Some(policies) => {
                next.policies = Arc::new(policies);
                Judgement::Changed
            }
            None => Judgement::Stands,
        });
    }

    /// Applies one response about services bound to this waypoint.
    pub fn apply_bound(&self, changed: Vec<(NamespacedName, BoundEntry)>, removed: &[NamespacedName]) {
        let mut is_news = false;
        self.publish(|next| {
            if let Some(bound) = next.bound.next(changed, removed) {
                next.bound = Arc::new(bound);
                is_news = true;
            }
            Judgement::Stands
        });
        if is_news {
            self.bound.send_modify(|count| *count += 1);
        }
    }

    fn publish(&self, change: impl FnOnce(&mut Snapshot) -> Judgement) {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.load());
        let judgement = change(&mut next);
        next.generation += 1;
        let generation = next.generation;
        self.current.store(Arc::new(next));
        self.generation.send_replace(generation);
        if judgement == Judgement::Changed {
            self.judgement.send_replace(generation);
        }
    }
}

#[cfg(test)]
mod tests;
