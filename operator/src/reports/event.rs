//! What node agents report, as events for the writer.

use std::sync::Arc;

use ambit_index::PodIdentity;
use ambit_model::NamespacedName;

/// Something that is true from now on, until the next event says otherwise. After an agent reconnects it may be said
/// again: writers compare before they write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReportEvent {
    /// Traffic of the pod goes through the mesh: peers may tunnel to it.
    PodEnrolled {
        /// The pod.
        pod: PodIdentity,
    },
    /// Nothing serves tunnels to the pod, or soon nothing will: peers must stop.
    PodLeft {
        /// The pod.
        pod: PodIdentity,
    },
    /// The pod cannot get to where it is wanted; the agent keeps trying.
    PodFailed {
        /// The pod.
        pod: PodIdentity,
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
    },
    /// Packets that the pod forwarded for something inside it were dropped.
    PodForwards {
        /// The pod.
        pod: PodIdentity,
        /// How many out of it.
        out: u64,
        /// How many into it.
        into: u64,
    },
    /// The pod ran before it could be enrolled, although it was wanted in the mesh from its start.
    PodLate {
        /// The pod.
        pod: PodIdentity,
        /// Connections that were closed.
        closed: u32,
    },
    /// Nothing of the mesh is left on the node.
    NodeClean {
        /// The node.
        node: Arc<str>,
        /// The pod of the agent that says so.
        agent: NamespacedName,
    },
    /// The node cannot serve the mesh.
    NodeProblem {
        /// The node.
        node: Arc<str>,
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
    },
    /// The node can serve the mesh (again).
    NodeServes {
        /// The node.
        node: Arc<str>,
    },
}
