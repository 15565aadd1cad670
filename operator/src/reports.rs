//! Node agents' reports about their pods, converted to events for the writers.
//!
//! Invariant: an event refers to a pod that is bound to the reporter's node, or to that node.

mod digest;
mod event;
mod stream;

use std::sync::Arc;

use ambit_model::NamespacedName;
use ambit_proto::node::{NodeReport, ReportAck, node_reports_server::NodeReports};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    ca::{Authenticator, NodePods},
    names,
};

use stream::Reports;

pub(crate) use event::ReportEvent;

/// Queued events; agents wait while the channel is full.
pub(crate) const EVENTS_MAX: usize = 1024;

/// The gRPC service.
pub(crate) struct ReportService {
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
        Ok(Response::new(stream::acks(Reports {
            reports: request.into_inner(),
            digest,
            pods: self.pods.clone(),
            events: self.events.clone(),
            stop: self.stop.clone(),
        })))
    }
}

#[cfg(test)]
mod tests;
