//! The pods this proxy serves, and what it holds for each.
//!
//! Invariant: a pod's network namespace stays open while anything of the pod runs, so that its inode stands for it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ambit_identity::Handshakes;
use ambit_model::NamespacedName;
use ambit_netns::NetNs;
use ambit_zds::Kind;

use crate::error::Error;

/// Connections of one pod in one direction, all workers together.
pub const CONNECTIONS_PER_POD_MAX: usize = 65_536;
/// Of those that come in as tunnels, how many at a time may not have proved yet who they are.
pub const HANDSHAKES_PER_POD_MAX: usize = 256;
/// Of these from one address.
pub const HANDSHAKES_PER_CLIENT_MAX: usize = 64;

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
    /// Tunnels to it whose peer is not known yet.
    pub handshakes: Handshakes,
    /// What it opens, and what others open to it: strangers take no place from the pod's own.
    outbound: AtomicUsize,
    inbound: AtomicUsize,
}

/// One connection's place among those of its pod.
#[derive(Debug)]
pub struct Place(Arc<Pod>, Kind);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counter(self.1).fetch_sub(1, Ordering::Relaxed);
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
            handshakes: Handshakes::new(HANDSHAKES_PER_POD_MAX, HANDSHAKES_PER_CLIENT_MAX),
            outbound: AtomicUsize::new(0),
            inbound: AtomicUsize::new(0),
        })
    }

    /// A place for one more connection.
    ///
    /// # Errors
    /// [`Error::TooManyConnections`]
    pub fn admit(self: &Arc<Self>, kind: Kind) -> Result<Place, Error> {
        let open = self.counter(kind).fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone(), kind);
        if open >= CONNECTIONS_PER_POD_MAX { Err(Error::TooManyConnections(open)) } else { Ok(place) }
    }

    /// Connections open now.
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
