//! Wiring: one control runtime for everything that is not a connection, one thread per worker for connections.
//!
//! Invariant: the control runtime never carries a byte of an application, so that a slow operator delays none.

use std::{sync::Arc, time::SystemTime};

use ambit_identity::{CaClient, ChannelConfig, Manager, OPERATOR_NAME, Token, channel};
use ambit_runtime::{Readiness, admin, env::ProxyConfig, lines, signal};
use ambit_store::Store;
use tokio::{task::JoinSet, time::interval};

use crate::{
    access_log::AccessLog,
    agent::{Held, Link},
    config::Config,
    context::Shared,
    dataplane::DataPlane,
    discovery,
    metrics::{Metrics, UNUSED_MAX},
};

/// Port of `/healthz/ready`.
const HEALTH_PORT: u16 = 15021;
/// Port of `/metrics`.
const METRICS_PORT: u16 = 15020;

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
}

/// Runs until SIGTERM and everything after it is done.
///
/// # Errors
/// When something that is needed from the start cannot be had.
pub async fn run(config: Config) -> Result<(), RunError> {
    let io = |doing| move |source| RunError::Io { doing, source };
    let Config { proxy, agent } = config;
    let readiness = Readiness::default();
    let metrics = Metrics::default();
    let shown = admin::Metrics::default();
    metrics.register(&shown);
    let health = admin::bind(HEALTH_PORT).await.map_err(io("health cannot be served"))?;
    let scrape = admin::bind(METRICS_PORT).await.map_err(io("metrics cannot be served"))?;

    let operator = channel::connect(ChannelConfig {
        address: proxy.operator,
        server_name: OPERATOR_NAME.to_owned(),
        roots_path: proxy.roots.clone(),
    })?;
    let ca = CaClient::new(operator.clone(), Token::new(&proxy.token), proxy.certificate_ttl);
    let (identities, manage) = Manager::new(ca, Arc::new(SystemTime::now));
    let store = Arc::new(Store::new());
    let log = start_log(&proxy, &metrics).map_err(io("the access log cannot be started"))?;
    let (asker, questions) = ambit_store::questions();
    let shared = Arc::new(Shared {
        store: store.clone(),
        asker,
        identities,
        node: proxy.node.as_str().into(),
        metrics: metrics.clone(),
        log,
    });
    let plane = DataPlane::start(&shared, proxy.workers).map_err(io("workers cannot be started"))?;
    let mut held = Held::new(shared, plane);

    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve_health(health, readiness.clone()));
    tasks.spawn(admin::serve_metrics(scrape, shown));
    tasks.spawn(manage);
    tasks.spawn(sweep(metrics.clone()));
    // Before the node agent may send pods: ready only when both have spoken.
    let link = Link::new(agent, instance(&proxy.pod), &readiness);
    let (subscribed, told) = (proxy.clone(), (metrics.xds.clone(), readiness.block("xds")));
    tasks.spawn(async move { discovery::run(&subscribed, operator, (store, questions), told).await });

    tracing::info!(workers = proxy.workers.get(), node = proxy.node, "ztunnel started");
    let agent = async {
        let _not_ready = link.run(&mut held).await;
        tracing::info!("Another process serves the node's pods; waiting to be ended");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        stop = signal::shutdown() => stop.map_err(io("signals cannot be heard"))?,
        () = agent => {}
    }
    tracing::info!(deadline = ?proxy.drain, "Waiting for open connections");
    held.into_plane().drain(proxy.drain).await;
    tracing::info!("ztunnel ended");
    Ok(())
}

fn start_log(config: &ProxyConfig, metrics: &Metrics) -> std::io::Result<AccessLog> {
    AccessLog::start(config.access_log, config.log_format, metrics.log_dropped.clone(), lines::stdout())
}

/// Tells two processes of one node apart: pod names are unique while both live, and a restarted container counts up.
fn instance(pod: &str) -> String {
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{pod}-{}", started.as_micros())
}

async fn sweep(metrics: Metrics) {
    let mut ticks = interval(UNUSED_MAX / 4);
    loop {
        ticks.tick().await;
        metrics.traffic.sweep(UNUSED_MAX);
    }
}
