//! Node agents' reports as events for the writers.

use std::sync::Arc;

use ambit_index::PodIdentity;
use ambit_model::NamespacedName;

/// A state that lasts until the next event. After an agent reconnects it may be repeated, so
/// writers compare before they write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReportEvent {
    /// The pod's traffic goes through the mesh: peers may tunnel to it.
    PodEnrolled {
        /// Identity of the pod.
        pod: PodIdentity,
    },
    /// Tunnels to the pod are not served any more, or soon will not be: peers must stop.
    PodLeft {
        /// Identity of the pod.
        pod: PodIdentity,
    },
    /// The pod cannot reach its wanted state; the agent keeps trying.
    PodFailed {
        /// Identity of the pod.
        pod: PodIdentity,
        /// CamelCase reason.
        reason: String,
        /// Human-readable message.
        message: String,
    },
    /// Forwarded packets of the pod were dropped.
    PodForwards {
        /// Identity of the pod.
        pod: PodIdentity,
        /// Number of packets out of the pod.
        out: u64,
        /// Number of packets into it.
        into: u64,
    },
    /// The pod ran before it was enrolled, although it was wanted in the mesh from its start.
    PodLate {
        /// Identity of the pod.
        pod: PodIdentity,
        /// Number of closed connections.
        closed: u32,
    },
    /// Nothing of the mesh is left on the node.
    NodeClean {
        /// Name of the node.
        node: Arc<str>,
        /// The reporting agent's pod.
        agent: NamespacedName,
    },
    /// The node cannot serve the mesh.
    NodeProblem {
        /// Name of the node.
        node: Arc<str>,
        /// CamelCase reason.
        reason: String,
        /// Human-readable message.
        message: String,
    },
    /// The node can serve the mesh (again).
    NodeServes {
        /// Name of the node.
        node: Arc<str>,
    },
}
