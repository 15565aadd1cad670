//! The pods served now, with the listeners that survive a restart of the agent.
//!
//! Invariant: a pod is listed here exactly as long as the workers serve it, and its certificate is
//! prefetched during that time.

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

/// Why a pod cannot be served; the agent gets the error and will retry.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The namespace cannot be used.
    #[error("{0}")]
    NetNs(#[from] ambit_netns::Error),
    /// A socket cannot be used.
    #[error("a listener cannot be used: {0}")]
    Listener(#[from] io::Error),
    /// A socket is in another namespace, or not listening.
    #[error("the {kind:?} listener is not one of this pod's namespace")]
    Foreign {
        /// Kind of the listener.
        kind: Kind,
    },
}

/// Whether the snapshot being received contains a pod.
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
    /// Waits for the pod's description and requests its certificate.
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
    /// Without pods.
    pub fn new(shared: Arc<Shared>, plane: DataPlane) -> Self {
        Self { shared, plane, pods: HashMap::new() }
    }

    /// Number of served pods.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there are no pods.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// The workers, for ending them.
    pub fn into_plane(self) -> DataPlane {
        self.plane
    }

    /// Duplicates of all listeners, for an agent that may have lost its own.
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

    /// The agent starts a new snapshot.
    pub fn begin_snapshot(&mut self) {
        self.pods.values_mut().for_each(|entry| entry.named = Named::NotYet);
    }

    /// The snapshot is complete: pods that it does not contain are removed.
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
        // From now on pods are removed one by one.
        self.pods.values_mut().for_each(|entry| entry.named = Named::Yes);
    }

    /// The agent lists a pod whose namespace it does not know.
    pub fn keep(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.named = Named::Yes;
        }
    }

    /// Serves a pod; one that is already served with the same sockets is not interrupted.
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

    /// Stops serving a pod.
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

    /// Stops accepting, because another process does.
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

    /// Drops a certificate once no pod needs it.
    async fn forget(&self, identity: &Spiffe) {
        let needed = self.pods.values().any(|entry| entry.identity.borrow().as_ref() == Some(identity));
        if !needed && let Err(error) = self.shared.identities.forget(identity).await {
            tracing::debug!(%identity, %error, "Certificate cannot be released");
        }
    }
}

type Prefetch = (tokio::task::JoinHandle<()>, tokio::sync::watch::Receiver<Option<Spiffe>>);

/// Requests a pod's certificate as soon as the control plane has described the pod.
fn prefetch(shared: Arc<Shared>, pod: Arc<Pod>) -> Prefetch {
    let (tell, identity) = tokio::sync::watch::channel(None);
    let task = tokio::spawn(async move {
        let workload = shared.store.workload_named(&pod.name).await;
        let id = workload.identity();
        tell.send_replace(Some(id.clone()));
        if let Err(error) = shared.identities.prefetch(&id, Priority::Warmup).await {
            tracing::debug!(identity = %id, %error, "Certificate cannot be prefetched");
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

/// For an agent that opens no listeners (Istio's).
fn own_listeners(netns: &NetNs) -> Result<Listeners, AddError> {
    let kinds = [
        (Kind::Outbound, OUTBOUND_PORT),
        (Kind::InboundPlaintext, INBOUND_PLAINTEXT_PORT),
        (Kind::Hbone, HBONE_PORT),
    ];
    kinds.into_iter().map(|(kind, port)| Ok((kind, ambit_netns::listener(netns, port)?))).collect()
}

/// Whether each given socket is the held one of its kind.
fn same_sockets(held: &[(Kind, TcpListener)], given: &[(Kind, TcpListener)]) -> bool {
    given.iter().all(|(kind, listener)| {
        let inode = inode(listener);
        inode.is_some() && held.iter().any(|(k, l)| k == kind && self::inode(l) == inode)
    })
}

/// A socket keeps its inode as long as any descriptor of it is open.
fn inode(listener: &TcpListener) -> Option<u64> {
    nix::sys::stat::fstat(listener).ok().map(|stat| stat.st_ino)
}
