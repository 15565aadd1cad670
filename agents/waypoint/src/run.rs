//! Wiring: one control runtime for everything that is not a connection, one thread per worker for connections.
//!
//! Invariant: the control runtime never carries a byte of an application, so that a slow operator delays none.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_identity::{CaClient, ChannelConfig, Manager, OPERATOR_NAME, Token, channel};
use ambit_model::HBONE_PORT;
use ambit_runtime::{Backoff, Blocker, Readiness, admin, lines, signal};
use tokio::task::JoinSet;

use crate::{
    access_log::AccessLog,
    config::{Config, TracingConfig},
    context::Shared,
    dataplane::DataPlane,
    discovery,
    metrics::{Metrics, UNUSED_MAX},
    services::Services,
    sockets,
    telemetry::Sinks,
    trace::{Origin, Tracer, UnusableCollector},
};

/// Port of `/healthz/ready`.
const HEALTH_PORT: u16 = 15021;
/// Port of `/metrics`.
const METRICS_PORT: u16 = 15020;
/// How long delivering the last spans may take when the process ends.
const SPANS_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause between two requests for the waypoint's own certificate.
const CERTIFY_PAUSE_MIN: Duration = Duration::from_millis(100);
const CERTIFY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why the program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port is taken, or a thread, a runtime or a signal handler cannot be had.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The operator cannot be addressed.
    #[error("the operator cannot be addressed: {0}")]
    Operator(#[from] ambit_identity::Error),
    /// Not a collector that spans can be sent to.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Collector(#[from] UnusableCollector),
}

/// Runs until SIGTERM and everything after it is done.
///
/// # Errors
/// When a port, a thread, the operator's address or the collector's cannot be used.
pub async fn run(config: Config) -> Result<(), RunError> {
    let io = |doing| move |source| RunError::Io { doing, source };
    let readiness = Readiness::default();
    let shown = admin::Metrics::default();
    let health = admin::bind(HEALTH_PORT).await.map_err(io("health cannot be served"))?;
    let scrape = admin::bind(METRICS_PORT).await.map_err(io("metrics cannot be served"))?;

    let operator = channel::connect(ChannelConfig {
        address: config.proxy.operator,
        server_name: OPERATOR_NAME.to_owned(),
        roots_path: config.proxy.roots.clone(),
    })?;
    let ca = CaClient::new(operator.clone(), Token::new(&config.proxy.token), config.proxy.certificate_ttl);
    let (identities, manage) = Manager::new(ca, Arc::new(SystemTime::now));
    let (sinks, exporter) = open_sinks(&config, &shown)?;
    let metrics = sinks.metrics.clone();
    let (asker, questions) = ambit_store::questions();
    let shared = Arc::new(Shared {
        store: Arc::default(),
        asker,
        services: Services::default(),
        identities,
        identity: config.identity.clone(),
        pod: config.pod.clone(),
        sinks,
    });
    let listener = sockets::listen(HBONE_PORT).map_err(io("tunnels cannot be accepted"))?;
    let plane =
        DataPlane::start(&shared, listener, config.proxy.workers).map_err(io("workers cannot be started"))?;

    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve_health(health, readiness.clone()));
    tasks.spawn(admin::serve_metrics(scrape, shown));
    tasks.spawn(manage);
    tasks.spawn(certify(shared.clone(), readiness.block("certificate")));
    let (subscribed, store) = (config.clone(), shared.store.clone());
    let told = (metrics.xds.clone(), readiness.block("xds"));
    tasks.spawn(async move { discovery::run(&subscribed, operator, (store, questions), told).await });
    tasks.spawn(sweep(metrics.clone()));
    tasks.spawn(count_services(shared.clone(), metrics));
    // Not among the tasks: it has to outlive them, and ends once all spans are delivered.
    let exporting = tokio::spawn(exporter);
    let followed = shared.clone();
    tasks.spawn(async move { followed.services.follow(&followed.store, &followed.pod).await });

    tracing::info!(workers = config.proxy.workers.get(), gateway = %config.gateway, "waypoint started");
    signal::shutdown().await.map_err(io("signals cannot be heard"))?;
    // Keeps new clients away while open requests finish.
    let _not_ready = readiness.block("draining");
    tracing::info!(deadline = ?config.proxy.drain, "Waiting for open requests");
    plane.drain(config.proxy.drain).await;
    tasks.shutdown().await;
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
    let proxy = &config.proxy;
    let started =
        AccessLog::start(proxy.access_log, proxy.log_format, metrics.log_dropped.clone(), lines::stdout());
    let doing = "the access log cannot be started";
    let log = started.map_err(|source| RunError::Io { doing, source })?;
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

async fn sweep(metrics: Metrics) {
    let mut ticks = tokio::time::interval(UNUSED_MAX / 4);
    loop {
        ticks.tick().await;
        metrics.traffic.sweep(UNUSED_MAX);
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
