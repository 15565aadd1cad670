//! Sends spans to the collector in batches (OTLP over gRPC).
//!
//! Invariant: at most one batch is being sent; a batch that cannot be delivered is dropped and counted, never sent again.

use std::{future::Future, time::Duration};

use ambit_model::NamespacedName;
use ambit_proto::opentelemetry::proto::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::InstrumentationScope,
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tonic::transport::Endpoint;

use super::span::text;

/// Largest number of spans in one batch.
const BATCH_MAX: usize = 512;
/// How long the first span of a batch waits for more.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Not an address that spans can be sent to.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to {address:?}, expected http://host:port: {source}")]
pub struct UnusableCollector {
    address: String,
    source: tonic::transport::Error,
}

/// The sender of the spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The Gateway that the waypoint serves.
    pub gateway: NamespacedName,
    /// The waypoint's pod.
    pub pod: NamespacedName,
}

/// Delivers spans until all senders are gone and the queue is empty.
pub(super) fn run(
    waiting: mpsc::Receiver<Span>,
    collector: &str,
    origin: Origin,
    counters: [Counter; 2],
) -> Result<impl Future<Output = ()> + use<>, UnusableCollector> {
    let unusable = |source| UnusableCollector { address: collector.to_owned(), source };
    let endpoint = Endpoint::from_shared(collector.to_owned()).map_err(unusable)?;
    let channel = endpoint.connect_timeout(EXPORT_TIMEOUT).connect_lazy();
    let send = async move |spans| {
        let mut client = TraceServiceClient::new(channel.clone());
        let late = |_| tonic::Status::deadline_exceeded("the collector does not answer");
        let answer =
            timeout(EXPORT_TIMEOUT, client.export(request(&origin, spans))).await.map_err(late)??;
        let refused = answer.into_inner().partial_success.unwrap_or_default().rejected_spans;
        Ok(u64::try_from(refused).unwrap_or(0))
    };
    Ok(deliver(waiting, send, counters))
}

/// `send` returns how many spans of a batch the collector refused.
async fn deliver(
    mut waiting: mpsc::Receiver<Span>,
    mut send: impl AsyncFnMut(Vec<Span>) -> Result<u64, tonic::Status>,
    [sent, dropped]: [Counter; 2],
) {
    let mut reachable = true;
    loop {
        let mut batch = Vec::new();
        if waiting.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        fill(&mut batch, &mut waiting).await;
        let count = batch.len() as u64;
        let outcome = send(batch).await;
        match &outcome {
            Ok(refused) => {
                let refused = count.min(*refused);
                sent.inc_by(count - refused);
                dropped.inc_by(refused);
            }
            Err(_) => {
                dropped.inc_by(count);
            }
        }
        // Logged once for each change, because a collector may be unreachable for long.
        match (reachable, &outcome) {
            (true, Err(error)) => tracing::warn!(%error, "Spans cannot be delivered"),
            (false, Ok(_)) => tracing::info!("Spans are delivered again"),
            (true, Ok(_)) | (false, Err(_)) => {}
        }
        reachable = outcome.is_ok();
    }
}

async fn fill(batch: &mut Vec<Span>, waiting: &mut mpsc::Receiver<Span>) {
    let until = Instant::now() + BATCH_WAIT;
    while batch.len() < BATCH_MAX {
        let room = BATCH_MAX - batch.len();
        match timeout_at(until, waiting.recv_many(batch, room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn request(origin: &Origin, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let Origin { gateway, pod } = origin;
    let attributes = vec![
        text("service.name", &gateway.name),
        text("service.namespace", &gateway.namespace),
        text("k8s.namespace.name", &pod.namespace),
        text("k8s.pod.name", &pod.name),
    ];
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Spans, what becomes of each batch of them, and when batches were sent.
    struct Collector {
        spans: mpsc::Sender<Span>,
        batches: Arc<Mutex<Vec<(usize, Duration)>>>,
        counters: [Counter; 2],
        task: tokio::task::JoinHandle<()>,
    }

    impl Collector {
        fn new(answers: Vec<Result<u64, tonic::Status>>) -> Self {
            let (spans, waiting) = mpsc::channel(2 * BATCH_MAX);
            let (batches, counters) = (Arc::default(), [Counter::default(), Counter::default()]);
            let (seen, begun): (Arc<Mutex<Vec<_>>>, _) = (Arc::clone(&batches), Instant::now());
            let mut answers = answers.into_iter();
            let send = async move |batch: Vec<Span>| {
                seen.lock().unwrap().push((batch.len(), begun.elapsed()));
                answers.next().unwrap_or(Ok(0))
            };
            let task = tokio::spawn(deliver(waiting, send, counters.clone()));
            Self { spans, batches, counters, task }
        }

        fn put(&self, count: usize) {
            (0..count).for_each(|_| self.spans.try_send(Span::default()).unwrap());
        }

        /// Batches, and how many spans were sent and dropped.
        async fn end(self) -> (Vec<(usize, Duration)>, [u64; 2]) {
            drop(self.spans);
            self.task.await.unwrap();
            (self.batches.lock().unwrap().clone(), self.counters.map(|counter| counter.get()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_when_it_is_full_or_its_first_span_has_waited() {
        let collector = Collector::new(Vec::new());
        collector.put(3);
        tokio::time::sleep(BATCH_WAIT / 2).await;
        collector.put(4);
        tokio::time::sleep(BATCH_WAIT * 2).await;
        collector.put(BATCH_MAX + 1);
        tokio::time::sleep(BATCH_WAIT / 2).await;
        let (batches, counted) = collector.end().await;
        let begun = BATCH_WAIT * 5 / 2;
        assert_eq!(batches, [(7, BATCH_WAIT), (BATCH_MAX, begun), (1, begun + BATCH_WAIT / 2)]);
        assert_eq!(counted, [BATCH_MAX as u64 + 8, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_delivered_is_counted_and_the_next_batch_goes_all_the_same() {
        let away = Err(tonic::Status::unavailable("away"));
        let collector = Collector::new(vec![away, Ok(2)]);
        for count in [5, 7, 1] {
            collector.put(count);
            tokio::time::sleep(BATCH_WAIT * 2).await;
        }
        let (batches, counted) = collector.end().await;
        assert_eq!((batches.len(), counted), (3, [5 + 1, 5 + 2]));
    }
}
