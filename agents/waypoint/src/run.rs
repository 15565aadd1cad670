//! Wiring: the process, its workers, what follows the store.
//!
//! Invariant: not ready before the waypoint has its certificate and the operator has sent every resource type.

use std::{sync::Arc, time::Duration};

use ambit_model::HBONE_PORT;
use ambit_proxy::{Process, StartError, access_log::AccessLog, process::Subscription};
use ambit_runtime::{Backoff, Blocker, admin, signal};
use ambit_store::BoundDiscovery;

use crate::{
    config::{Config, TracingConfig},
    context::Shared,
    dataplane::DataPlane,
    metrics::Metrics,
    services::Services,
    sockets,
    telemetry::Sinks,
    trace::{Origin, Tracer, UnusableCollector},
};

/// How long delivering the last spans may take when the process ends.
const SPANS_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause between two requests for the waypoint's own certificate.
const CERTIFY_PAUSE_MIN: Duration = Duration::from_millis(100);
const CERTIFY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why the waypoint cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// As for every proxy.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Not a collector that spans can be sent to.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Collector(#[from] UnusableCollector),
}

/// Runs until SIGTERM and everything after it is done.
///
/// # Errors
/// When a port, a thread, the operator's address or the collector's cannot be used.
pub async fn run(config: Config) -> Result<(), RunError> {
    let shown = admin::Metrics::default();
    let (sinks, exporter) = open_sinks(&config, &shown)?;
    let metrics = sinks.metrics.clone();
    let (mut process, operator) = Process::start(&config.proxy, shown).await?;
    let (query_sender, queries) = ambit_store::queries();
    let shared = Arc::new(Shared {
        store: Arc::default(),
        query_sender,
        services: Services::default(),
        identities: process.identities.clone(),
        identity: config.identity.clone(),
        pod: config.pod.clone(),
        sinks,
    });
    let listener = sockets::listen(HBONE_PORT).map_err(StartError::io("tunnels cannot be accepted"))?;
    let plane = DataPlane::start(&shared, listener, config.proxy.workers)
        .map_err(StartError::io("workers cannot be started"))?;

    process.spawn(certify(shared.clone(), process.readiness.block("certificate")));
    let subscription = Subscription {
        // The operator sends the services that are bound to this Gateway.
        node: config.proxy.subscriber("waypoint").with("GATEWAY", config.gateway.name.to_string()),
        types: BoundDiscovery::TYPES.to_vec(),
        handler: BoundDiscovery::new(shared.store.clone()),
        queries,
        counters: metrics.xds.clone(),
    };
    process.spawn(operator.subscribe(&config.proxy, subscription));
    let traffic = metrics.traffic.clone();
    process.spawn_sweep(move |unused| traffic.sweep(unused));
    process.spawn(count_services(shared.clone(), metrics));
    let followed = shared.clone();
    process.spawn(async move { followed.services.follow(&followed.store, &followed.pod).await });
    // Not a task of the process: it has to outlive them, and ends once all spans are delivered.
    let exporting = tokio::spawn(exporter);

    tracing::info!(workers = config.proxy.workers.get(), gateway = %config.gateway, "waypoint started");
    signal::shutdown().await.map_err(StartError::io("signal handlers cannot be installed"))?;
    // Keeps new clients away while open requests finish.
    let _not_ready = process.readiness.block("draining");
    tracing::info!(deadline = ?config.proxy.drain, "Waiting for open requests");
    plane.drain(config.proxy.drain).await;
    process.end().await;
    drop(shared);
    if tokio::time::timeout(SPANS_TIMEOUT, exporting).await.is_err() {
        tracing::warn!("Spans were left when the process ended");
    }
    tracing::info!("waypoint ended");
    Ok(())
}

/// Opens what workers report to. The future delivers spans until all clones of the sinks are gone.
fn open_sinks(
    config: &Config,
    shown: &admin::Metrics,
) -> Result<(Sinks, impl Future<Output = ()> + Send + use<>), RunError> {
    let metrics = Metrics::default();
    metrics.register(shown);
    let log = AccessLog::to_stdout(&config.proxy, metrics.log_dropped.clone())?;
    let origin = Origin { gateway: config.gateway.clone(), pod: config.pod.clone() };
    let counters = [metrics.spans_sent.clone(), metrics.spans_dropped.clone()];
    let start = |to: &TracingConfig| Tracer::start(&to.endpoint, to.sampled, origin, counters);
    let (tracer, exporter) = config.tracing.as_ref().map(start).transpose()?.unzip();
    let deliver = async move {
        if let Some(exporter) = exporter {
            exporter.await;
        }
    };
    Ok((Sinks { metrics, log: Some(log), tracer }, deliver))
}

async fn count_services(shared: Arc<Shared>, metrics: Metrics) {
    let mut changes = shared.services.changes();
    loop {
        metrics.services.set(i64::try_from(shared.services.load().count()).unwrap_or(i64::MAX));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Requests the waypoint's own certificate until it is issued; the process is not ready before.
async fn certify(shared: Arc<Shared>, waiting: Blocker) {
    let mut backoff = Backoff::new(CERTIFY_PAUSE_MIN, CERTIFY_PAUSE_MAX);
    while let Err(error) = shared.identities.get(&shared.identity).await {
        let pause = backoff.pause();
        tracing::warn!(%error, retry_in = ?pause, "No certificate yet");
        tokio::time::sleep(pause).await;
    }
    drop(waiting);
}
