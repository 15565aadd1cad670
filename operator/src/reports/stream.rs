//! The report stream of one agent: each report is acknowledged once its events are queued for the
//! writer.

use std::{sync::Arc, time::Duration};

use ambit_proto::node::{NodeReport, ReportAck};
use futures::{StreamExt, stream::BoxStream};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tonic::{Status, Streaming};

use super::{digest::Digest, event::ReportEvent};
use crate::ca::NodePods;

/// Interval of checking pods that were unknown.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Interval of checking whether a node has registered again.
const REGISTRATION_PAUSE: Duration = Duration::from_secs(2);

/// One agent's reports, and the channel for their events.
pub(super) struct Reports {
    pub(super) reports: Streaming<NodeReport>,
    pub(super) digest: Digest,
    pub(super) pods: Arc<dyn NodePods>,
    pub(super) events: mpsc::Sender<ReportEvent>,
    pub(super) stop: watch::Receiver<bool>,
}

enum Woken {
    Report(Result<Option<NodeReport>, Status>),
    Retry,
    Stop,
}

pub(super) fn acks(reports: Reports) -> BoxStream<'static, Result<ReportAck, Status>> {
    futures::stream::unfold(Some(reports), |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(Some(ack)) => Some((Ok(ack), Some(state))),
            Ok(None) => None,
            Err(status) => {
                tracing::info!(node = %state.digest.node(), reason = status.message(), "Node reports ended");
                Some((Err(status), None))
            }
        }
    })
    .boxed()
}

impl Reports {
    async fn next(&mut self) -> Result<Option<ReportAck>, Status> {
        loop {
            let pause = if self.digest.is_waiting() { RETRY_PAUSE } else { REGISTRATION_PAUSE };
            let woken = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => Woken::Stop,
                report = self.reports.message() => Woken::Report(report),
                () = sleep(pause) => Woken::Retry,
            };
            match woken {
                Woken::Stop => return Err(Status::unavailable("the server is shutting down")),
                Woken::Retry => {
                    let events = self.digest.retry(&*self.pods, Instant::now());
                    self.deliver(events).await?;
                }
                Woken::Report(report) => {
                    let Some(report) = report? else { return Ok(None) };
                    let events = self.digest.take(report, &*self.pods, Instant::now());
                    self.deliver(events).await?;
                    return Ok(Some(ReportAck {}));
                }
            }
        }
    }

    async fn deliver(&self, events: Vec<ReportEvent>) -> Result<(), Status> {
        for event in events {
            self.events.send(event).await.map_err(|_| Status::unavailable("reports are not accepted now"))?;
        }
        Ok(())
    }
}
