//! What all workers share, and what the connections of one worker share.
//!
//! Invariant: threads share [`Shared`] only; everything else in [`Local`] belongs to one of them.

use std::{fmt, rc::Rc, sync::Arc};

use ambit_identity::{Handshakes, Manager};
use ambit_model::{NamespacedName, NetworkAddress, Spiffe, Workload};
use ambit_proxy::{stage::StageWatch, worker::Tasks};
use ambit_store::{Lookup, Snapshot, Store};
use ambit_xds::QuerySender;

use crate::{
    peer::{Known, Peer},
    services::Services,
    streams::Streams,
    telemetry::{Sinks, Telemetry},
    upstream::Connections,
};

/// Handshakes of one worker at a time.
pub const HANDSHAKES_MAX: usize = 512;
/// Handshakes of one worker at a time with clients of one address.
pub const HANDSHAKES_PER_CLIENT_MAX: usize = 128;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The mesh as the control plane describes it.
    pub store: Arc<Store>,
    /// Asks the operator about addresses that the store does not know.
    pub query_sender: QuerySender,
    /// The services bound here, compiled.
    pub services: Services,
    /// Own certificate.
    pub identities: Manager,
    /// Own identity.
    pub identity: Spiffe,
    /// Own pod.
    pub pod: NamespacedName,
    /// Where workers report to.
    pub sinks: Sinks,
}

impl Shared {
    /// The waypoint's own pod; an empty workload until the control plane has described it.
    pub fn own(&self, snapshot: &Snapshot) -> Arc<Workload> {
        snapshot.workload_by_name(&self.pod).cloned().unwrap_or_default()
    }

    /// The pod of the client's address, if its identity is the one that the client proved.
    fn described(&self, peer: &Peer) -> Option<Arc<Workload>> {
        let snapshot = self.store.load();
        let own = snapshot.workload_by_name(&self.pod);
        let network = own.map(|own| own.network.clone()).unwrap_or_default();
        let address = NetworkAddress { network, address: peer.client.ip().to_canonical() };
        snapshot.workload_by_address(&address).filter(|found| found.identity() == peer.identity).cloned()
    }
}

/// What the connections of one worker share.
pub struct Local {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Serving, draining or cut.
    pub stage: StageWatch,
    /// Handshakes in progress, limited in number.
    pub handshakes: Handshakes,
    /// Byte streams that policy admitted.
    pub streams: Streams,
    /// What this worker reports.
    pub telemetry: Telemetry,
    /// Connections to endpoints.
    pub upstreams: Connections,
    /// Pending queries about addresses that the store does not know.
    pub lookup: Lookup,
    /// Its connections and streams.
    pub tasks: Tasks,
}

impl Local {
    /// For a new worker.
    pub fn new(shared: Arc<Shared>, stage: StageWatch) -> Rc<Self> {
        let upstreams = Connections::new(shared.identities.clone(), shared.identity.clone());
        let telemetry = Telemetry::new(&shared.sinks);
        let lookup = Lookup::new(shared.query_sender.clone());
        Rc::new(Self {
            lookup,
            shared,
            stage,
            handshakes: Handshakes::new(HANDSHAKES_MAX, HANDSHAKES_PER_CLIENT_MAX),
            streams: Streams::default(),
            telemetry,
            upstreams,
            tasks: Tasks::default(),
        })
    }

    /// A client as the mesh knows it. LookupResult up until the control plane has described it: the first request of a pod may
    /// come before that.
    pub fn client(&self, peer: &Peer) -> Known {
        if let Some(known) = peer.known.get() {
            return known.clone();
        }
        let workload = self.shared.described(peer);
        let labels = self.telemetry.client_labels(&peer.identity, workload.as_ref());
        let known = Known { workload, labels };
        if known.workload.is_some() {
            // The cell is empty, as was seen above.
            let _ = peer.known.set(known.clone());
        }
        known
    }

    /// Closes connections that were not used for long.
    pub fn tidy(&self) {
        self.upstreams.sweep();
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("streams", &self.streams).finish_non_exhaustive()
    }
}
