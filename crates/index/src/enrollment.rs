//! Which pods should be in the mesh, and why. The order of precedence: exclusion, pods that cannot
//! be in the mesh, the pod's label, the namespace's label.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    nodes::DataplaneMode,
    pods::{PodFacts, probes::ProbeCall},
    settings::{Presence, Settings},
};

/// Whether a pod should be in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// Not in the mesh.
    Out,
    /// In the mesh: identity, mTLS and L4 policy.
    L4,
}

/// Reasons for [`Enrollment::wanted`].
pub mod reason {
    /// There is no Mesh.
    pub const NO_MESH: &str = "NoMesh";
    /// The Mesh is being deleted.
    pub const MESH_LEAVING: &str = "MeshLeaving";
    /// The mesh's own namespace.
    pub const SYSTEM_NAMESPACE: &str = "SystemNamespace";
    /// `spec.enrollment.excludeNamespaces` names it.
    pub const EXCLUDED: &str = "Excluded";
    /// The pod has no network of its own.
    pub const HOST_NETWORK: &str = "HostNetwork";
    /// The mirror of a static pod, or a pod without a service account.
    pub const NO_IDENTITY: &str = "NoIdentity";
    /// The pod has a sidecar.
    pub const SIDECAR: &str = "Sidecar";
    /// The pod's containers have terminated.
    pub const TERMINATED: &str = "Terminated";
    /// The pod's label decides.
    pub const POD_LABEL: &str = "PodLabel";
    /// The namespace's label decides.
    pub const NAMESPACE_LABEL: &str = "NamespaceLabel";
    /// No label enrolls it.
    pub const NOT_LABELLED: &str = "NotLabelled";
}

/// One pod bound to a node, and whether it should be in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// Kubernetes uid of the pod.
    pub uid: Arc<str>,
    /// Pod namespace.
    pub namespace: Arc<str>,
    /// Pod name.
    pub name: Arc<str>,
    /// Service account; empty for a pod without an identity.
    pub service_account: Arc<str>,
    /// Node that it is bound to.
    pub node: Arc<str>,
    /// Whether it should be in the mesh.
    pub wanted: Wanted,
    /// One of [`reason`].
    pub reason: &'static str,
    /// It was wanted in the mesh before it had an address, and therefore before its first process.
    pub wanted_from_start: bool,
    /// Addresses; empty until it has them.
    pub ips: Vec<IpAddr>,
    /// Inbound traffic is not redirected.
    pub bypass_inbound: bool,
    /// Requests of the kubelet to the pod, for its probes and lifecycle hooks.
    pub probes: BTreeSet<ProbeCall>,
    /// Devices in the pod whose inbound traffic counts as the pod's outbound traffic.
    pub reroute_interfaces: BTreeSet<String>,
    /// The pod has the annotation that marks its traffic as redirected.
    pub redirected: bool,
}

/// What every node agent must know in addition to its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeEnrollment {
    /// Namespaces whose pods may start only when enrolled.
    pub enrolled_namespaces: BTreeSet<Arc<str>>,
    /// Other namespaces that contain pods enrolled by their own label.
    pub partly_enrolled_namespaces: BTreeSet<Arc<str>>,
    /// Remove every trace of the mesh.
    pub decommission: bool,
}

/// Whether a pod should be in the mesh, and why.
pub(crate) fn wanted(
    pod: &PodFacts,
    namespace: DataplaneMode,
    settings: &Settings,
) -> (Wanted, &'static str) {
    match settings.presence {
        Presence::Absent => return (Wanted::Out, reason::NO_MESH),
        Presence::Leaving => return (Wanted::Out, reason::MESH_LEAVING),
        Presence::Present => {}
    }
    if pod.name.namespace == settings.system_namespace {
        return (Wanted::Out, reason::SYSTEM_NAMESPACE);
    }
    if settings.exclude_namespaces.contains(&pod.name.namespace) {
        return (Wanted::Out, reason::EXCLUDED);
    }
    if pod.host_network {
        return (Wanted::Out, reason::HOST_NETWORK);
    }
    if !pod.has_identity() {
        return (Wanted::Out, reason::NO_IDENTITY);
    }
    if pod.sidecar {
        return (Wanted::Out, reason::SIDECAR);
    }
    if pod.terminated {
        return (Wanted::Out, reason::TERMINATED);
    }
    match (pod.mode, namespace) {
        (DataplaneMode::Ambient, _) => (Wanted::L4, reason::POD_LABEL),
        (DataplaneMode::None, _) => (Wanted::Out, reason::POD_LABEL),
        (DataplaneMode::Unset, DataplaneMode::Ambient) => (Wanted::L4, reason::NAMESPACE_LABEL),
        (DataplaneMode::Unset, DataplaneMode::None | DataplaneMode::Unset) => {
            (Wanted::Out, reason::NOT_LABELLED)
        }
    }
}

/// Whether a pod's own label enrolls it, provided that the mesh covers its namespace.
pub(crate) fn enrolls_itself(pod: &PodFacts) -> bool {
    pod.mode == DataplaneMode::Ambient && !pod.host_network && !pod.sidecar && !pod.terminated
}

/// Whether pods of a namespace may be enrolled at all.
pub(crate) fn takes_pods_of(name: &Arc<str>, settings: &Settings) -> bool {
    settings.presence == Presence::Present
        && *name != settings.system_namespace
        && !settings.exclude_namespaces.contains(name)
}

/// Whether the pods of a namespace may start only when enrolled.
pub(crate) fn is_enrolled_namespace(name: &Arc<str>, mode: DataplaneMode, settings: &Settings) -> bool {
    mode == DataplaneMode::Ambient && takes_pods_of(name, settings)
}
