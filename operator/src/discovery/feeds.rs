//! What agents read, written by the index task.
//!
//! Invariant: a feed is served only once its first complete state is in.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ambit_proto::{ADDRESS, AUTHORIZATION, ENROLLMENT};
use ambit_xds::Feed;

/// All feeds of the mesh. Write policies before the workloads that name them, then mark or replace.
#[derive(Debug)]
pub struct Feeds {
    /// Workloads and services.
    pub address: Feed,
    /// L4 policies.
    pub authorization: Feed,
    enrollment: Mutex<HashMap<String, Feed>>,
}

impl Default for Feeds {
    fn default() -> Self {
        Self {
            address: Feed::new(ADDRESS),
            authorization: Feed::new(AUTHORIZATION),
            enrollment: Mutex::default(),
        }
    }
}

impl Feeds {
    /// The enrollment of a node's pods. It exists from first asking on; a node agent waits until it is synced, so each
    /// node's must be, also that of a node without pods.
    pub fn enrollment(&self, node: &str) -> Feed {
        self.lock().entry(node.to_owned()).or_insert_with(|| Feed::new(ENROLLMENT)).clone()
    }

    /// A node is gone. Streams that read its feed end; should the node come back, it gets a new one.
    pub fn forget(&self, node: &str) {
        if let Some(feed) = self.lock().remove(node) {
            feed.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Feed>> {
        self.enrollment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
