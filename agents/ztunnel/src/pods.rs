//! The pods this proxy serves, and what it holds for each.
//!
//! Invariant: a pod's network namespace stays open while anything of the pod runs, so that its inode stands for it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ambit_model::NamespacedName;
use ambit_netns::NetNs;

use crate::error::Error;

/// Connections of one pod, all workers and directions together.
pub const CONNECTIONS_PER_POD_MAX: usize = 65_536;

/// One pod, shared by all workers.
#[derive(Debug)]
pub struct Pod {
    /// Kubernetes `metadata.uid`.
    pub uid: Arc<str>,
    /// Namespace and name.
    pub name: NamespacedName,
    /// Service account, as the node agent says.
    pub service_account: Arc<str>,
    /// Its network namespace.
    pub netns: NetNs,
    connections: AtomicUsize,
}

/// One connection's place among those of its pod.
#[derive(Debug)]
pub struct Place(Arc<Pod>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pod {
    /// Takes over the namespace of a pod that the node agent described.
    pub fn new(pod: &ambit_zds::Pod, netns: NetNs) -> Arc<Self> {
        Arc::new(Self {
            uid: pod.uid.as_str().into(),
            name: NamespacedName::new(pod.namespace.as_str(), pod.name.as_str()),
            service_account: pod.service_account.as_str().into(),
            netns,
            connections: AtomicUsize::new(0),
        })
    }

    /// A place for one more connection.
    ///
    /// # Errors
    /// [`Error::TooManyConnections`]
    pub fn admit(self: &Arc<Self>) -> Result<Place, Error> {
        let open = self.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone());
        if open >= CONNECTIONS_PER_POD_MAX { Err(Error::TooManyConnections(open)) } else { Ok(place) }
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
