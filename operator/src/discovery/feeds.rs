//! What agents and waypoints read, written by the index task.
//!
//! Invariant: a feed is served only once its first complete state is in.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ambit_model::NamespacedName;
use ambit_proto::{ADDRESS, AUTHORIZATION, BOUND_SERVICE, ENROLLMENT};
use ambit_xds::Feed;

/// All feeds of the mesh. Write policies before the workloads that name them, then mark or replace.
#[derive(Debug)]
pub struct Feeds {
    /// Workloads and services.
    pub address: Feed,
    /// L4 policies.
    pub authorization: Feed,
    enrollment: Keyed<str>,
    bound: Keyed<NamespacedName>,
}

impl Default for Feeds {
    fn default() -> Self {
        Self {
            address: Feed::with_aliases(ADDRESS, ambit_wds::aliases),
            authorization: Feed::new(AUTHORIZATION),
            enrollment: Keyed::new(ENROLLMENT),
            bound: Keyed::new(BOUND_SERVICE),
        }
    }
}

impl Feeds {
    /// The enrollment of a node's pods. It exists from first asking on; a node agent waits until it is synced, so each
    /// node's must be, also that of a node without pods.
    pub fn enrollment(&self, node: &str) -> Feed {
        self.enrollment.get(node)
    }

    /// What a waypoint knows. It exists from first asking on, and must be synced also without a service.
    pub fn bound(&self, waypoint: &NamespacedName) -> Feed {
        self.bound.get(waypoint)
    }

    /// A node is gone. Streams that read its feed end; should the node come back, it gets a new one.
    pub fn forget(&self, node: &str) {
        self.enrollment.forget(node);
    }

    /// A waypoint is gone.
    pub fn forget_waypoint(&self, waypoint: &NamespacedName) {
        self.bound.forget(waypoint);
    }
}

/// Feeds of one type, one for each reader.
#[derive(Debug)]
struct Keyed<K: ToOwned + ?Sized>
where
    K::Owned: Eq + Hash,
{
    type_url: &'static str,
    feeds: Mutex<HashMap<K::Owned, Feed>>,
}

impl<K: ToOwned + Eq + Hash + ?Sized> Keyed<K>
where
    K::Owned: Eq + Hash,
{
    fn new(type_url: &'static str) -> Self {
        Self { type_url, feeds: Mutex::default() }
    }

    fn get(&self, key: &K) -> Feed {
        self.lock().entry(key.to_owned()).or_insert_with(|| Feed::new(self.type_url)).clone()
    }

    fn forget(&self, key: &K) {
        if let Some(feed) = self.lock().remove(key) {
            feed.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K::Owned, Feed>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
