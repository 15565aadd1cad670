//! What node agents say about their pods, turned into events for whoever writes to the cluster.
//!
//! Invariant: an event names a pod that is bound to the reporter's node, as the cluster knows it, or the node itself.

mod digest;
mod stream;

use std::sync::Arc;

use ambit_index::PodIdentity;
use ambit_model::NamespacedName;
use ambit_proto::node::{NodeReport, ReportAck, node_reports_server::NodeReports};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    ca::{Authenticator, NodePods},
    names,
};

/// Events that may wait for the writer; a full channel makes agents wait.
pub const EVENTS_MAX: usize = 1024;

/// Something that is true from now on, until the next event says otherwise. After an agent reconnects it may be said
/// again: writers compare before they write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportEvent {
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

/// The service.
pub struct ReportService {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) pods: Arc<dyn NodePods>,
    pub(crate) events: mpsc::Sender<ReportEvent>,
    pub(crate) stop: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl NodeReports for ReportService {
    type ReportStream = BoxStream<'static, Result<ReportAck, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let caller = self.authenticator.caller(request.metadata(), request.extensions()).await?;
        if !caller.is_system(names::NODE_AGENT) {
            tracing::warn!(%caller, "Reports refused");
            return Err(Status::permission_denied("only node agents report"));
        }
        let (Some(pod), Some(node)) = (&caller.pod, &caller.node) else {
            return Err(Status::permission_denied("the token is not bound to a pod and a node"));
        };
        let agent = NamespacedName::new(caller.namespace.clone(), pod.name.clone());
        tracing::info!(%caller, "Node reports");
        let digest = digest::Digest::new(node.clone(), agent);
        Ok(Response::new(stream::acks(self, request.into_inner(), digest)))
    }
}

#[cfg(test)]
mod tests;
