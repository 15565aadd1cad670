//! State shared by the connections of one pod in one worker.
//!
//! Invariant: only [`Shared`] is shared between threads; a context lives until the last of its
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
pub(crate) const WORKLOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// State shared by all workers.
#[derive(Debug)]
pub struct Shared {
    /// The mesh, as received from the control plane.
    pub store: Arc<Store>,
    /// Queries the operator about unknown addresses.
    pub query_sender: QuerySender,
    /// Certificates of this node's workloads.
    pub identities: Manager,
    /// Name of this node.
    pub node: Arc<str>,
    /// Metrics of the process.
    pub metrics: Metrics,
    /// The access log.
    pub log: AccessLog,
}

/// State shared by the pods of one worker.
#[derive(Debug)]
pub(crate) struct Local {
    /// State shared by all workers.
    pub shared: Arc<Shared>,
    /// Accounting of this worker's connections.
    pub flows: Rc<Flows>,
    /// Inbound connections that policy admitted.
    pub connections: Connections,
}

impl Local {
    /// For a new worker.
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let flows = Flows::new(shared.log.clone(), &shared.metrics.traffic);
        Rc::new(Self { shared, flows, connections: Connections::default() })
    }
}

/// One pod in one worker.
pub(crate) struct Context {
    /// State of the worker.
    pub local: Rc<Local>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// Stage of the pod, which decides what its tasks may do.
    pub stage: StageWatch,
    /// Its tunnels to others.
    pub tunnels: Tunnels<Error>,
    /// Lookups of unknown addresses.
    pub lookup: Lookup,
    /// Its connections.
    pub tasks: Tasks,
    labels: RefCell<Option<(Arc<Workload>, Rc<Baggage>)>>,
}

impl Context {
    /// For a pod that starts to be served.
    pub(crate) fn new(local: Rc<Local>, pod: Arc<Pod>, stage: StageWatch) -> Rc<Self> {
        let tunnels = Tunnels::new(local.shared.identities.clone());
        let lookup = Lookup::new(local.shared.query_sender.clone());
        let labels = RefCell::default();
        Rc::new(Self { local, pod, stage, tunnels, lookup, tasks: Tasks::default(), labels })
    }

    /// The pod as described by the control plane; waits for the description at most
    /// [`WORKLOAD_TIMEOUT`].
    ///
    /// # Errors
    /// [`Error::UnknownWorkload`], [`Error::AccountMismatch`]
    pub(crate) async fn workload(&self) -> Result<Arc<Workload>, Error> {
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
                // The store outlives its workers.
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(WORKLOAD_TIMEOUT, wait)
            .await
            .ok()
            .flatten()
            .ok_or_else(|| Error::UnknownWorkload { name: self.pod.name.clone(), waited: begun.elapsed() })
    }

    /// The pod's own labels for peers, cached per description.
    pub(crate) fn baggage(&self, workload: &Arc<Workload>) -> Rc<Baggage> {
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
