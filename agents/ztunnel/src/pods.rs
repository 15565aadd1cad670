//! The pods served by this proxy, and their state.
//!
//! Invariant: a pod's network namespace stays open as long as anything of the pod runs, so that its
//! inode is not reused.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ambit_identity::Handshakes;
use ambit_model::NamespacedName;
use ambit_netns::NetNs;
use ambit_zds::Kind;

use crate::error::Error;

/// Connections of one pod in one direction, in all workers together.
pub(crate) const CONNECTIONS_PER_POD_MAX: usize = 65_536;
/// Inbound tunnel connections per pod with a handshake in progress.
pub(crate) const HANDSHAKES_PER_POD_MAX: usize = 256;
/// The same per client address.
pub const HANDSHAKES_PER_CLIENT_MAX: usize = 64;

/// One pod, shared by all workers.
#[derive(Debug)]
pub struct Pod {
    /// Kubernetes `metadata.uid`.
    pub uid: Arc<str>,
    /// Namespace and name of the pod.
    pub name: NamespacedName,
    /// Service account according to the node agent.
    pub service_account: Arc<str>,
    /// Network namespace of the pod.
    pub netns: NetNs,
    /// Inbound handshakes in progress.
    pub handshakes: Handshakes,
    /// Outbound and inbound are counted separately, so that clients cannot use up the pod's own
    /// connections.
    outbound: AtomicUsize,
    inbound: AtomicUsize,
}

/// A reserved connection slot of a pod.
#[derive(Debug)]
pub struct Place(Arc<Pod>, Kind);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counter(self.1).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pod {
    /// Wraps the namespace of a pod described by the node agent.
    pub fn new(pod: &ambit_zds::Pod, netns: NetNs) -> Arc<Self> {
        Arc::new(Self {
            uid: pod.uid.as_str().into(),
            name: NamespacedName::new(pod.namespace.as_str(), pod.name.as_str()),
            service_account: pod.service_account.as_str().into(),
            netns,
            handshakes: Handshakes::new(HANDSHAKES_PER_POD_MAX, HANDSHAKES_PER_CLIENT_MAX),
            outbound: AtomicUsize::new(0),
            inbound: AtomicUsize::new(0),
        })
    }

    /// Reserves a slot for one more connection.
    ///
    /// # Errors
    /// [`Error::TooManyConnections`]
    pub fn admit(self: &Arc<Self>, kind: Kind) -> Result<Place, Error> {
        let open = self.counter(kind).fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone(), kind);
        if open >= CONNECTIONS_PER_POD_MAX { Err(Error::TooManyConnections(open)) } else { Ok(place) }
    }

    /// Number of open connections.
    pub fn connections(&self) -> usize {
        self.outbound.load(Ordering::Relaxed) + self.inbound.load(Ordering::Relaxed)
    }

    fn counter(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Outbound => &self.outbound,
            Kind::InboundPlaintext | Kind::Hbone => &self.inbound,
        }
    }
}
