//! Wiring: one control runtime for everything that is not a connection, one thread per worker for connections.
//!
//! Invariant: the control runtime never carries a byte of an application, so that a slow operator delays none.

use std::{sync::Arc, time::SystemTime};

use ambit_identity::{CaClient, ChannelConfig, Manager, Token, channel};
use ambit_runtime::{Readiness, admin, signal};
use tokio::task::JoinSet;

use crate::config::Config;

/// Port of `/healthz/ready`.
const HEALTH_PORT: u16 = 15021;
/// Port of `/metrics`.
const METRICS_PORT: u16 = 15020;
/// The name in the operator's certificate.
const OPERATOR_NAME: &str = "ambit-operator.ambit-system.svc";

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
    let readiness = Readiness::default();
    let shown = admin::Metrics::default();
    let health = admin::bind(HEALTH_PORT).await.map_err(io("health cannot be served"))?;
    let scrape = admin::bind(METRICS_PORT).await.map_err(io("metrics cannot be served"))?;

    let operator = channel::connect(ChannelConfig {
        address: config.operator,
        server_name: OPERATOR_NAME.to_owned(),
        roots_path: config.roots.clone(),
    })?;
    let ca = CaClient::new(operator, Token::new(&config.token), config.certificate_ttl);
    let (identities, manage) = Manager::new(ca, Arc::new(SystemTime::now));

    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve_health(health, readiness.clone()));
    tasks.spawn(admin::serve_metrics(scrape, shown));
    tasks.spawn(manage);
    let waiting = readiness.block("certificate");
    let identity = config.identity.clone();
    tasks.spawn(async move {
        if identities.get(&identity).await.is_ok() {
            drop(waiting);
        }
    });
    signal::shutdown().await.map_err(io("signals cannot be heard"))
}
