//! What the connections of one pod share in one worker.
//!
//! Invariant: nothing here is shared between threads but through [`Shared`]; a context lives until the last of its
//! connections has ended.

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_hbone::Baggage;
use ambit_identity::Manager;
use ambit_model::{Workload, WorkloadKind};
use ambit_proxy::{access_log::AccessLog, stage::StageWatch, tunnel::Tunnels, worker::Tasks};
use ambit_store::{Lookup, Store};
use ambit_xds::QuerySender;

use crate::{connections::Connections, error::Error, flow::Flows, metrics::Metrics, pods::Pod};

/// How long a connection waits for the control plane to describe its pod.
pub const WORKLOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The mesh, as the control plane tells it.
    pub store: Arc<Store>,
    /// Asks it about addresses that nobody here has heard of.
    pub query_sender: QuerySender,
    /// Certificates of this node's workloads.
    pub identities: Manager,
    /// The node this is.
    pub node: Arc<str>,
    /// Counters.
    pub metrics: Metrics,
    /// The access log.
    pub log: AccessLog,
}

/// What the pods of one worker share.
#[derive(Debug)]
pub struct Local {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Bookkeeping of this worker's connections.
    pub flows: Rc<Flows>,
    /// Inbound connections that policy admitted.
    pub connections: Connections,
}

impl Local {
    /// For a new worker.
    pub fn new(shared: Arc<Shared>) -> Rc<Self> {
        let flows = Flows::new(shared.log.clone(), &shared.metrics.traffic);
        Rc::new(Self { shared, flows, connections: Connections::default() })
    }
}

/// One pod in one worker.
pub struct Context {
    /// The worker.
    pub local: Rc<Local>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// What its tasks may still do.
    pub stage: StageWatch,
    /// Its tunnels to others.
    pub tunnels: Tunnels<Error>,
    /// What it asks about addresses that nobody here has heard of.
    pub lookup: Lookup,
    /// Its connections.
    pub tasks: Tasks,
    labels: RefCell<Option<(Arc<Workload>, Rc<Baggage>)>>,
}

impl Context {
    /// For a pod that begins to be served.
    pub fn new(local: Rc<Local>, pod: Arc<Pod>, stage: StageWatch) -> Rc<Self> {
        let tunnels = Tunnels::new(local.shared.identities.clone());
        let lookup = Lookup::new(local.shared.query_sender.clone());
        let labels = RefCell::default();
        Rc::new(Self { local, pod, stage, tunnels, lookup, tasks: Tasks::default(), labels })
    }

    /// The pod as the control plane describes it; waits for that at most [`WORKLOAD_TIMEOUT`].
    ///
    /// # Errors
    /// [`Error::UnknownWorkload`], [`Error::AccountMismatch`]
    pub async fn workload(&self) -> Result<Arc<Workload>, Error> {
        let workload = match self.known() {
            Some(workload) => workload,
            None => self.described().await?,
        };
        if workload.service_account != self.pod.service_account {
            return Err(Error::AccountMismatch {
                name: self.pod.name.clone(),
                agent: self.pod.service_account.clone(),
                operator: workload.service_account.clone(),
            });
        }
        Ok(workload)
    }

    /// A pod of the same name on another node is its successor or predecessor, not this one.
    fn known(&self) -> Option<Arc<Workload>> {
        let shared = &self.local.shared;
        shared.store.load().workload_by_name(&self.pod.name).filter(|w| w.node == shared.node).cloned()
    }

    async fn described(&self) -> Result<Arc<Workload>, Error> {
        let begun = Instant::now();
        let mut changes = self.local.shared.store.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if let Some(workload) = self.known() {
                    return Some(workload);
                }
                // The store outlives its workers; were it gone, nothing would be known any more.
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(WORKLOAD_TIMEOUT, wait)
            .await
            .ok()
            .flatten()
            .ok_or_else(|| Error::UnknownWorkload { name: self.pod.name.clone(), waited: begun.elapsed() })
    }

    /// The pod's own labels for peers, made once per description.
    pub fn baggage(&self, workload: &Arc<Workload>) -> Rc<Baggage> {
        let mut labels = self.labels.borrow_mut();
        if let Some((of, baggage)) = labels.as_ref()
            && Arc::ptr_eq(of, workload)
        {
            return baggage.clone();
        }
        let baggage = Rc::new(baggage(workload));
        *labels = Some((workload.clone(), baggage.clone()));
        baggage
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("pod", &self.pod.name).finish_non_exhaustive()
    }
}

fn baggage(workload: &Workload) -> Baggage {
    let known = |text: &Arc<str>| (!text.is_empty()).then(|| text.to_string());
    let kind = match workload.kind {
        WorkloadKind::Deployment => "deployment",
        WorkloadKind::CronJob => "cronjob",
        WorkloadKind::Pod => "pod",
        WorkloadKind::Job => "job",
    };
    Baggage {
        cluster: known(&workload.cluster_id),
        namespace: known(&workload.namespace),
        workload: known(&workload.workload_name).map(|name| (kind.to_owned(), name)),
        service: known(&workload.canonical_name),
        revision: known(&workload.canonical_revision),
        region: known(&workload.locality.region),
        zone: known(&workload.locality.zone),
    }
}
