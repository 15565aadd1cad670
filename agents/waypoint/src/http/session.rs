//! What the requests of one tunnel have in common.
//!
//! Invariant: each request begins with the current configuration of its service. A service that is no longer bound here is
//! served with its last configuration while its clients are asked to go elsewhere, so that unbinding fails no request.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use ambit_model::{Connection, Workload};
use tokio::sync::Notify;

use super::watched::Progress;
use crate::{
    context::Local,
    peer::Peer,
    service::Service,
    target::{Pod, Target, is_bound},
    upstream::Upstream,
};

/// One tunnel that carries HTTP.
#[derive(Debug)]
pub struct Session {
    /// The worker.
    pub local: Rc<Local>,
    /// The client.
    pub peer: Rc<Peer>,
    /// The address that the client connected to.
    pub destination: SocketAddr,
    /// The pod, if the client addressed one by its own address.
    pub pod: Option<Pod>,
    /// The connection as policies see it.
    pub connection: Connection,
    /// Between requests, in a head, or serving.
    pub progress: Progress,
    current: RefCell<Current>,
    leaving: Cell<bool>,
    left: Notify,
}

#[derive(Debug)]
struct Current {
    generation: u64,
    service: Arc<Service>,
}

impl Session {
    /// The client's pod, if the choice of an endpoint depends on its node.
    pub fn client_of(&self, upstream: &Upstream) -> Option<Arc<Workload>> {
        let client = || self.local.client(&self.peer).workload;
        upstream.is_node_local().then(client).flatten()
    }

    /// For a tunnel to `target`.
    pub fn new(local: Rc<Local>, peer: Rc<Peer>, target: Target) -> Rc<Self> {
        let Target { service, address: destination, pod } = target;
        let generation = local.shared.services.load().generation;
        Rc::new(Self {
            connection: peer.connection(destination),
            local,
            peer,
            destination,
            pod,
            progress: Progress::default(),
            // Outdated, so that the first request looks the service up: it may have been replaced since.
            current: RefCell::new(Current { generation: generation.wrapping_sub(1), service }),
            leaving: Cell::new(false),
            left: Notify::new(),
        })
    }

    /// The service in its current version.
    pub fn service(&self) -> Arc<Service> {
        let bound = self.local.shared.services.load();
        let mut current = self.current.borrow_mut();
        if current.generation != bound.generation {
            current.generation = bound.generation;
            match bound.get(&current.service.bound.key) {
                Some(service) => current.service = service.clone(),
                None => self.leave(),
            }
            if !self.stays(&current.service) {
                self.leave();
            }
        }
        current.service.clone()
    }

    /// Whether `service` still applies to the pod, if the pod is bound itself.
    fn stays(&self, service: &Service) -> bool {
        let Some(pod) = self.pod.as_ref().filter(|pod| pod.upstream.is_some()) else { return true };
        let snapshot = self.local.shared.store.load();
        let own = self.local.shared.own(&snapshot);
        snapshot.workload_by_uid(&pod.uid).is_some_and(|pod| is_bound(service, pod, &snapshot, &own))
    }

    /// Asks the client to go elsewhere after its open requests.
    fn leave(&self) {
        self.leaving.set(true);
        self.left.notify_waiters();
    }

    /// Returns once the client is to go elsewhere: the process drains, or the service is no longer bound here.
    pub async fn leaving(&self) {
        let left = self.left.notified();
        if self.leaving.get() {
            return;
        }
        tokio::select! {
            () = left => {}
            () = self.local.stage.draining() => {}
        }
    }
}
