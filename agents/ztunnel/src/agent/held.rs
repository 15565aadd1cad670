//! The pods served now, with the sockets that outlive a restart of the agent.
//!
//! Invariant: a pod is here exactly as long as the workers serve it, and its identity is prefetched as long.

use std::{collections::HashMap, io, net::TcpListener, os::fd::AsFd, sync::Arc};

use ambit_identity::Priority;
use ambit_model::{HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT, Spiffe};
use ambit_netns::NetNs;
use ambit_zds::{Add, Connections, Kind, Listener, ListenerOf};

use crate::{
    context::Shared,
    dataplane::{DataPlane, Listeners},
    pods::Pod,
};

/// Why a pod cannot be served; the agent is told and will ask again.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The namespace cannot be used.
    #[error("{0}")]
    NetNs(#[from] ambit_netns::Error),
    /// A socket cannot be used.
    #[error("a listener cannot be used: {0}")]
    Listener(#[from] io::Error),
    /// A socket of another namespace, or one that does not listen.
    #[error("the {kind:?} listener is not one of this pod's namespace")]
    Foreign {
        /// Which.
        kind: Kind,
    },
}

/// Whether the snapshot that is coming in has named a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Yes,
    NotYet,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    listeners: Listeners,
    named: Named,
    /// Waits for the pod's description and asks for its certificate.
    prefetch: tokio::task::JoinHandle<()>,
    identity: tokio::sync::watch::Receiver<Option<Spiffe>>,
}

/// All pods of the node.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    plane: DataPlane,
    pods: HashMap<Arc<str>, Entry>,
}

impl Held {
    /// No pods yet.
    pub fn new(shared: Arc<Shared>, plane: DataPlane) -> Self {
        Self { shared, plane, pods: HashMap::new() }
    }

    /// Pods served.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// The workers, to end them.
    pub fn into_plane(self) -> DataPlane {
        self.plane
    }

    /// Duplicates of all sockets, for an agent that may have lost its own.
    pub fn listeners(&self) -> Vec<ListenerOf> {
        let all = self.pods.values().flat_map(|entry| {
            entry.listeners.iter().map(|(kind, listener)| {
                let fd = listener.as_fd().try_clone_to_owned()?;
                Ok(ListenerOf { uid: entry.pod.uid.to_string(), listener: Listener { kind: *kind, fd } })
            })
        });
        all.filter_map(|listener: io::Result<ListenerOf>| match listener {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::warn!(%error, "A listener cannot be duplicated; the agent opens another");
                None
            }
        })
        .collect()
    }

    /// The agent begins to say everything anew.
    pub fn begin_snapshot(&mut self) {
        self.pods.values_mut().for_each(|entry| entry.named = Named::NotYet);
    }

    /// The agent has said everything: what it did not name is gone.
    pub async fn end_snapshot(&mut self) {
        let gone: Vec<Arc<str>> = self
            .pods
            .iter()
            .filter(|(_, entry)| entry.named == Named::NotYet)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.del(&uid, Connections::Close).await;
        }
        // From now on deletions come one by one.
        self.pods.values_mut().for_each(|entry| entry.named = Named::Yes);
    }

    /// The agent names a pod whose namespace it does not know.
    pub fn keep(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.named = Named::Yes;
        }
    }

    /// Serves a pod; one that is served already with the same sockets goes on undisturbed.
    ///
    /// # Errors
    /// See [`AddError`]; the pod is then served as before, or not at all.
    pub async fn add(&mut self, add: Add) -> Result<(), AddError> {
        let netns = NetNs::from_fd(add.netns)?;
        let listeners = listeners(&netns, add.listeners)?;
        let uid: Arc<str> = add.pod.uid.as_str().into();
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.named = Named::Yes;
            if entry.pod.netns.same(&netns) {
                if listeners.is_empty() || same_sockets(&entry.listeners, &listeners) {
                    return Ok(());
                }
                self.del(&uid, Connections::Keep).await;
            } else {
                self.del(&uid, Connections::Close).await;
            }
        }
        let listeners = if listeners.is_empty() { own_listeners(&netns)? } else { listeners };
        let pod = Pod::new(&add.pod, netns);
        self.plane.serve(&pod, &listeners).await?;
        let (prefetch, identity) = prefetch(self.shared.clone(), pod.clone());
        tracing::info!(pod.uid = %uid, pod.name = %pod.name, "Serving pod");
        self.shared.metrics.pods_started.inc();
        self.pods.insert(uid, Entry { pod, listeners, named: Named::Yes, prefetch, identity });
        self.count();
        Ok(())
    }

    /// Serves a pod no longer.
    pub async fn del(&mut self, uid: &Arc<str>, connections: Connections) {
        self.plane.leave(uid, connections).await;
        let Some(entry) = self.pods.remove(uid) else { return };
        entry.prefetch.abort();
        tracing::info!(pod.uid = %uid, pod.name = %entry.pod.name, ?connections, "No longer serving pod");
        self.shared.metrics.pods_stopped.inc();
        self.count();
        let identity = entry.identity.borrow().clone();
        if let Some(identity) = identity {
            self.forget(&identity).await;
        }
    }

    /// Another process accepts from now on.
    pub async fn hand_over(&mut self) {
        self.plane.hand_over().await;
        for (_, entry) in self.pods.drain() {
            entry.prefetch.abort();
        }
        self.count();
    }

    fn count(&self) {
        self.shared.metrics.pods.set(i64::try_from(self.pods.len()).unwrap_or(i64::MAX));
    }

    /// Lets go of a certificate once no pod needs it.
    async fn forget(&self, identity: &Spiffe) {
        let needed = self.pods.values().any(|entry| entry.identity.borrow().as_ref() == Some(identity));
        if !needed && let Err(error) = self.shared.identities.forget(identity).await {
            tracing::debug!(%identity, %error, "Certificate cannot be forgotten");
        }
    }
}

type Prefetch = (tokio::task::JoinHandle<()>, tokio::sync::watch::Receiver<Option<Spiffe>>);

/// Asks for a pod's certificate as soon as the control plane has said who it is.
fn prefetch(shared: Arc<Shared>, pod: Arc<Pod>) -> Prefetch {
    let (tell, identity) = tokio::sync::watch::channel(None);
    let task = tokio::spawn(async move {
        let workload = shared.store.workload_named(&pod.name).await;
        let id = workload.identity();
        tell.send_replace(Some(id.clone()));
        if let Err(error) = shared.identities.prefetch(&id, Priority::Warmup).await {
            tracing::debug!(identity = %id, %error, "Certificate cannot be fetched ahead");
        }
    });
    (task, identity)
}

fn listeners(netns: &NetNs, given: Vec<Listener>) -> Result<Listeners, AddError> {
    given
        .into_iter()
        .map(|Listener { kind, fd }| {
            let facts = ambit_netns::inspect(&fd)?;
            if facts.cookie != netns.cookie() || !facts.listening {
                return Err(AddError::Foreign { kind });
            }
            let listener = TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            Ok((kind, listener))
        })
        .collect()
}

/// For an agent that opens none (Istio's).
fn own_listeners(netns: &NetNs) -> Result<Listeners, AddError> {
    let kinds = [
        (Kind::Outbound, OUTBOUND_PORT),
        (Kind::InboundPlaintext, INBOUND_PLAINTEXT_PORT),
        (Kind::Hbone, HBONE_PORT),
    ];
    kinds.into_iter().map(|(kind, port)| Ok((kind, ambit_netns::listener(netns, port)?))).collect()
}

/// Whether each given socket is the one held for its kind.
fn same_sockets(held: &[(Kind, TcpListener)], given: &[(Kind, TcpListener)]) -> bool {
    given.iter().all(|(kind, listener)| {
        let inode = inode(listener);
        inode.is_some() && held.iter().any(|(k, l)| k == kind && self::inode(l) == inode)
    })
}

/// A socket's inode is its own for as long as a descriptor of it is open.
fn inode(listener: &TcpListener) -> Option<u64> {
    nix::sys::stat::fstat(listener).ok().map(|stat| stat.st_ino)
}
