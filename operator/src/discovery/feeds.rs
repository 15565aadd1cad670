//! The xDS feeds of agents and waypoints, written by the index task.
//!
//! Invariant: a feed is served only once its first complete state was published.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ambit_model::NamespacedName;
use ambit_proto::{ADDRESS, AUTHORIZATION, BOUND_SERVICE, ENROLLMENT};
use ambit_xds::Feed;

/// All feeds. Publish policies before the workloads that reference them, then mark or replace.
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
    /// The enrollments of a node, created on first use. A node agent waits until its feed is
    /// synced, so every node's feed must be, even without pods.
    pub fn enrollment(&self, node: &str) -> Feed {
        self.enrollment.get(node)
    }

    /// The compiled services of a waypoint, created on first use. It must be synced even without
    /// services.
    pub fn bound(&self, waypoint: &NamespacedName) -> Feed {
        self.bound.get(waypoint)
    }

    /// Removes the feed of a deleted node. Its streams end; a node that comes back gets a new feed.
    pub fn forget(&self, node: &str) {
        self.enrollment.forget(node);
    }

    /// Removes the feed of a deleted waypoint.
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
