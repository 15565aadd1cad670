//! The pods whose namespace the agent holds, and the proxy's acknowledgements.
//!
//! Shared by the pods' drivers and the connection to the proxy. Invariant: a pod listed here has
//! its namespace and all three listeners open.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ambit_netns::NetNs;
use ambit_zds::{Kind, Listener, ListenerOf, Pod};

use crate::{Error, kernel::port};

/// The listeners of every pod.
pub(crate) const KINDS: [Kind; 3] = [Kind::Outbound, Kind::InboundPlaintext, Kind::Hbone];

/// A pod's namespace and the listening sockets in it.
#[derive(Debug)]
pub struct Opened {
    /// Keeps the namespace alive, so that its identity is not reused.
    pub netns: NetNs,
    /// One of each kind.
    pub listeners: Vec<Listener>,
}

/// A pod to pass to a proxy.
#[derive(Clone, Debug)]
pub struct Held {
    /// The pod in ZDS messages.
    pub pod: Pod,
    /// Namespace and listeners.
    pub opened: Arc<Opened>,
}

/// The list of pods.
#[derive(Debug, Default)]
pub struct Roster(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: BTreeMap<String, Held>,
    /// Generation of the connection that acknowledged the pod.
    acked: BTreeMap<String, u64>,
    /// Listeners that a proxy brought and that no pod uses yet.
    adopted: BTreeMap<String, Vec<Listener>>,
    /// All pods of this node, once the operator has described them.
    known: Option<BTreeSet<String>>,
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All pods.
    pub fn held(&self) -> Vec<Held> {
        self.lock().held.values().cloned().collect()
    }

    /// One pod.
    pub fn get(&self, uid: &str) -> Option<Held> {
        self.lock().held.get(uid).cloned()
    }

    /// Adds an open pod.
    pub fn insert(&self, held: Held) {
        self.lock().held.insert(held.pod.uid.clone(), held);
    }

    /// Removes a pod.
    pub fn remove(&self, uid: &str) {
        let mut inner = self.lock();
        inner.held.remove(uid);
        inner.adopted.remove(uid);
    }

    /// The connection that last acknowledged the pod.
    pub fn acked(&self, uid: &str) -> Option<u64> {
        self.lock().acked.get(uid).copied()
    }

    /// Records that a connection acknowledged the pod, or that it was removed.
    pub fn set_acked(&self, uid: &str, generation: Option<u64>) {
        let mut inner = self.lock();
        match generation {
            Some(generation) => inner.acked.insert(uid.to_owned(), generation),
            None => inner.acked.remove(uid),
        };
    }

    /// Keeps the listeners that a proxy brought for pods that are not open yet.
    pub fn adopt(&self, brought: Vec<ListenerOf>) {
        let mut inner = self.lock();
        for of in brought {
            if !inner.held.contains_key(&of.uid) {
                let listeners = inner.adopted.entry(of.uid).or_default();
                listeners.retain(|listener| listener.kind != of.listener.kind);
                listeners.push(of.listener);
            }
        }
    }

    /// Sets the complete list of pods on this node.
    pub fn set_known(&self, uids: BTreeSet<String>) {
        let mut inner = self.lock();
        inner.adopted.retain(|uid, _| uids.contains(uid));
        inner.known = Some(uids);
    }

    /// Whether a proxy should continue to serve this pod although the agent has not opened it.
    pub fn is_kept(&self, uid: &str) -> bool {
        let inner = self.lock();
        !inner.held.contains_key(uid) && inner.known.as_ref().is_none_or(|known| known.contains(uid))
    }

    /// The pod's listeners in `netns`: those a proxy brought, and new ones for the rest. Blocking.
    ///
    /// # Errors
    /// A port in use means that a proxy holds the listener and has not connected yet.
    pub fn open(&self, uid: &str, netns: NetNs) -> Result<Opened, Error> {
        let brought = self.lock().adopted.remove(uid).unwrap_or_default();
        let mut listeners: Vec<Listener> =
            brought.into_iter().filter(|listener| fits(listener, &netns)).collect();
        for kind in KINDS {
            if listeners.iter().any(|listener| listener.kind == kind) {
                continue;
            }
            match ambit_netns::listener(&netns, port(kind)) {
                Ok(socket) => {
                    // The proxy must get the new namespace, whatever it acknowledged before.
                    self.set_acked(uid, None);
                    listeners.push(Listener { kind, fd: socket.into() });
                }
                Err(error) => {
                    self.give_back(uid, listeners);
                    return Err(error.into());
                }
            }
        }
        Ok(Opened { netns, listeners })
    }
}

impl Roster {
    /// Keeps listeners for the next attempt, in addition to those that a proxy brought meanwhile.
    fn give_back(&self, uid: &str, listeners: Vec<Listener>) {
        let mut inner = self.lock();
        let kept = inner.adopted.entry(uid.to_owned()).or_default();
        for listener in listeners {
            if !kept.iter().any(|other| other.kind == listener.kind) {
                kept.push(listener);
            }
        }
    }
}

/// Whether a socket that a proxy brought may be armed; the proxy is trusted less than the agent.
fn fits(listener: &Listener, netns: &NetNs) -> bool {
    ambit_netns::inspect(&listener.fd).is_ok_and(|facts| {
        facts.cookie == netns.cookie()
            && facts.listening
            && facts.transparent
            && facts.local.ip().is_loopback()
            && facts.local.port() == port(listener.kind)
    })
}
