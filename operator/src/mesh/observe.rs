//! The inputs of decisions, read from watch caches; no API calls are made here.

use std::{collections::BTreeSet, sync::Arc};

use ambit_api::labels;
use ambit_index::Index;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
};

use super::cache::MeshCaches;
use crate::{container::operator_ip, names, waypoint};

/// A pod of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentPod {
    /// Pod name.
    pub name: String,
    /// [`names::NODE_AGENT`] or [`names::ZTUNNEL`].
    pub app: String,
    /// Node it runs on.
    pub node: String,
    /// Whether it is ready.
    pub ready: bool,
    /// It has removed every trace of the mesh from its node.
    pub clean: bool,
    /// Whether its node exists.
    pub has_node: bool,
    /// Whether it is being deleted.
    pub is_leaving: bool,
}

/// A pod outside our namespace that is still annotated as redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirected {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// The inputs of decisions.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeshWorld {
    /// Current time.
    pub now: Timestamp,
    /// ClusterIP of the operator's Service.
    pub operator_ip: Option<String>,
    /// DaemonSets of the agents.
    pub daemon_sets: Vec<Arc<DaemonSet>>,
    /// Service accounts of the agents.
    pub service_accounts: Vec<Arc<ServiceAccount>>,
    /// ConfigMaps with roots.
    pub config_maps: Vec<Arc<ConfigMap>>,
    /// Secrets with authorities.
    pub secrets: Vec<Arc<Secret>>,
    /// Pods of the agents.
    pub pods: Vec<AgentPod>,
    /// Pods annotated as redirected.
    pub redirected: Vec<Redirected>,
    /// Number of pods in the mesh.
    pub enrolled: usize,
    /// Number of pods that are not in their wanted state.
    pub pending: usize,
    /// Waypoints.
    pub waypoints: waypoint::WaypointWorld,
}

/// Observes everything except waypoints.
pub(crate) fn observe(caches: &MeshCaches, index: &Index, now: Timestamp) -> MeshWorld {
    let (enrolled, pending) = index.enrolled_and_pending();
    let redirected = index.enrollments().filter(|e| e.redirected);
    MeshWorld {
        now,
        operator_ip: operator_ip(&caches.services.state()),
        daemon_sets: caches.daemon_sets.state(),
        service_accounts: caches.service_accounts.state(),
        config_maps: caches.config_maps.state(),
        secrets: caches.secrets.state(),
        pods: caches.pods.state().iter().filter_map(|pod| agent_pod(pod, index)).collect(),
        redirected: redirected
            .map(|e| Redirected { namespace: e.namespace.clone(), name: e.name.clone() })
            .collect(),
        enrolled,
        pending,
        waypoints: waypoint::WaypointWorld::default(),
    }
}

impl MeshWorld {
    /// A DaemonSet of the agents.
    pub(crate) fn daemon_set(&self, name: &str) -> Option<&DaemonSet> {
        self.daemon_sets.iter().map(Arc::as_ref).find(|set| set.metadata.name.as_deref() == Some(name))
    }

    /// Nodes on which both agents are ready.
    pub(crate) fn ready_nodes(&self) -> BTreeSet<&str> {
        let of = |app: &str| -> BTreeSet<&str> {
            self.pods.iter().filter(|p| p.app == app && p.ready).map(|p| p.node.as_str()).collect()
        };
        of(names::NODE_AGENT).intersection(&of(names::ZTUNNEL)).copied().collect()
    }
}

fn agent_pod(pod: &Pod, index: &Index) -> Option<AgentPod> {
    let app = pod.metadata.labels.as_ref()?.get(labels::APP)?;
    if app != names::NODE_AGENT && app != names::ZTUNNEL {
        return None;
    }
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let annotations = pod.metadata.annotations.as_ref();
    Some(AgentPod {
        name: pod.metadata.name.clone()?,
        app: app.clone(),
        ready: conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"),
        clean: annotations.is_some_and(|a| a.get(labels::CLEAN).is_some_and(|value| value == "true")),
        has_node: index.has_node(&node),
        is_leaving: pod.metadata.deletion_timestamp.is_some(),
        node,
    })
}
