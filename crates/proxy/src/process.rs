//! The process around the workers: command line, logs, health, metrics, certificates, the subscription to the operator.
//!
//! Invariant: the control runtime never carries a byte of an application, so that a slow operator delays none. The process is
//! not ready before the operator has sent every resource type completely; from then on it stays ready, also while the operator
//! is unreachable.

use std::{
    future::Future,
    io,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_identity::{CaClient, ChannelConfig, Manager, OPERATOR_NAME, Token, channel};
use ambit_model::{HEALTH_PORT, METRICS_PORT};
use ambit_runtime::{Blocker, Readiness, admin, telemetry};
use ambit_xds::{Counters, Handler, Node, Queries, Subscriber};
use clap::Command;
use tokio::{task::JoinSet, time::interval};
use tonic::transport::Channel;

use crate::{ProxyConfig, limits, worker};

/// How long a series of metrics is kept that no connection uses.
const SERIES_UNUSED_MAX: Duration = Duration::from_secs(15 * 60);

/// Why a proxy cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken, or a thread, a runtime or a signal handler cannot be had.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The operator cannot be addressed.
    #[error("the operator cannot be addressed: {0}")]
    Operator(#[from] ambit_identity::Error),
}

impl StartError {
    /// For [`Result::map_err`].
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// What every proxy runs beside its workers.
#[derive(Debug)]
pub struct Process {
    /// What keeps the process from being ready.
    pub readiness: Readiness,
    /// Certificates, requested from the operator.
    pub identities: Manager,
    tasks: JoinSet<()>,
}

/// The operator, before the process has subscribed to it.
#[derive(Debug)]
pub struct Operator {
    channel: Channel,
    /// Keeps the process from being ready until the subscription is complete.
    waiting: Blocker,
}

/// What a proxy subscribes to.
#[derive(Debug)]
pub struct Subscription<H> {
    /// The subscriber.
    pub node: Node,
    /// Resource types; one that others refer to comes before them.
    pub types: Vec<&'static str>,
    /// Receives the resources.
    pub handler: H,
    /// Queries about single addresses.
    pub queries: Queries,
    /// Counts messages.
    pub counters: Counters,
}

/// Handles `--help` and `--version`, and nothing else: a proxy is configured by its environment.
pub fn parse_arguments(name: &'static str, version: &'static str, help: &'static str) {
    Command::new(name).version(version).about(help).get_matches();
}

/// How many cores the process may use.
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Starts logging, raises the limit of open files, and runs `program` on the control runtime.
///
/// # Errors
/// Those of `program`, and that there is no runtime.
pub fn block_on<E: From<StartError>>(
    config: &ProxyConfig,
    program: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    telemetry::init(&config.log_filter, config.log_format);
    limits::raise_open_files();
    worker::runtime().map_err(StartError::io("the control runtime cannot be started"))?.block_on(program)
}

impl Process {
    /// Serves health and `metrics`, and gets ready to request certificates.
    ///
    /// # Errors
    /// When a port is taken or the operator's address cannot be used.
    pub async fn start(
        config: &ProxyConfig,
        metrics: admin::Metrics,
    ) -> Result<(Self, Operator), StartError> {
        let readiness = Readiness::default();
        let waiting = readiness.block("xds");
        let health = admin::bind(HEALTH_PORT).await.map_err(StartError::io("health cannot be served"))?;
        let scrape = admin::bind(METRICS_PORT).await.map_err(StartError::io("metrics cannot be served"))?;
        let channel = channel::connect(ChannelConfig {
            address: config.operator,
            server_name: OPERATOR_NAME.to_owned(),
            roots_path: config.roots.clone(),
        })?;
        let ca = CaClient::new(channel.clone(), Token::new(&config.token), config.certificate_ttl);
        let (identities, manage) = Manager::new(ca, Arc::new(SystemTime::now));
        let mut tasks = JoinSet::new();
        tasks.spawn(admin::serve_health(health, readiness.clone()));
        tasks.spawn(admin::serve_metrics(scrape, metrics));
        tasks.spawn(manage);
        Ok((Self { readiness, identities, tasks }, Operator { channel, waiting }))
    }

    /// Runs a task until the process ends.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Drops unused series now and then; `sweep` gets how long they have been unused.
    pub fn spawn_sweep(&mut self, sweep: impl Fn(Duration) + Send + 'static) {
        self.spawn(async move {
            let mut ticks = interval(SERIES_UNUSED_MAX / 4);
            loop {
                ticks.tick().await;
                sweep(SERIES_UNUSED_MAX);
            }
        });
    }

    /// Ends all tasks.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Operator {
    /// Passes what the operator sends to the handler, until dropped.
    pub fn subscribe<H: Handler>(
        self,
        config: &ProxyConfig,
        subscription: Subscription<H>,
    ) -> impl Future<Output = ()> + use<H> {
        let Subscription { node, types, handler, queries, counters } = subscription;
        let config = ambit_xds::Config {
            node,
            types,
            token_path: Some(config.token.clone()),
            cluster_id: config.cluster_id.clone(),
        };
        let connect = move || std::future::ready(Ok(self.channel.clone()));
        ambit_xds::run_counted(config, connect, Subscriber { handler, queries }, counters, self.waiting)
    }
}
