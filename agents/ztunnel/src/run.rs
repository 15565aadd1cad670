//! Starts the process: its workers and the connection to the node agent.
//!
//! Invariant: not ready before the node agent has sent its snapshot and the operator has sent every
//! resource type.

use std::{sync::Arc, time::SystemTime};

use ambit_proxy::{Process, StartError, access_log::AccessLog, process::Subscription};
use ambit_runtime::{admin, signal};
use ambit_store::{Discovery, Store};

use crate::{
    agent::{Held, Link},
    config::Config,
    context::Shared,
    dataplane::DataPlane,
    metrics::Metrics,
};

/// Runs until SIGTERM and the drain that follows it.
///
/// # Errors
/// When something that is needed from the start is not available.
pub async fn run(config: Config) -> Result<(), StartError> {
    let Config { proxy, agent } = config;
    let (metrics, shown) = (Metrics::default(), admin::Metrics::default());
    metrics.register(&shown);
    let (mut process, operator) = Process::start(&proxy, shown).await?;
    let store = Arc::new(Store::new());
    let log = AccessLog::to_stdout(&proxy, metrics.log_dropped.clone())?;
    let (query_sender, queries) = ambit_store::queries();
    let shared = Arc::new(Shared {
        store: store.clone(),
        query_sender,
        identities: process.identities.clone(),
        node: proxy.node.as_str().into(),
        metrics: metrics.clone(),
        log,
    });
    let plane =
        DataPlane::start(&shared, proxy.workers).map_err(StartError::io("workers cannot be started"))?;
    let mut held = Held::new(shared, plane);

    // Created before the agent may send pods, so that readiness waits for both.
    let link = Link::new(agent, instance(&proxy.pod), &process.readiness);
    let subscription = Subscription {
        node: proxy.subscriber("ztunnel"),
        types: Discovery::TYPES.to_vec(),
        handler: Discovery::new(store),
        queries,
        counters: metrics.xds.clone(),
    };
    process.spawn(operator.subscribe(&proxy, subscription));
    process.spawn_sweep(move |unused| metrics.traffic.sweep(unused));

    tracing::info!(workers = proxy.workers.get(), node = proxy.node, "ztunnel started");
    let agent = async {
        let _not_ready = link.run(&mut held).await;
        tracing::info!("Another process serves the node's pods; waiting for SIGTERM");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        stop = signal::shutdown() => stop.map_err(StartError::io("signal handlers cannot be installed"))?,
        () = agent => {}
    }
    tracing::info!(deadline = ?proxy.drain, "Waiting for open connections");
    held.into_plane().drain(proxy.drain).await;
    tracing::info!("ztunnel ended");
    Ok(())
}

/// Distinguishes two processes on one node: pod names are unique while both run, and a restarted
/// container counts up.
fn instance(pod: &str) -> String {
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{pod}-{}", started.as_micros())
}
