//! The subscription to the operator: addresses and the services bound here, into the store.
//!
//! Invariant: not ready until both were received completely; from then on ready, also while the operator is away.

use std::{collections::BTreeMap, sync::Arc};

use ambit_runtime::Blocker;
use ambit_store::{BoundDiscovery, Store};
use ambit_xds::{Handler, Node, Rejection, Resource, Status};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::{
    config::Config,
    metrics::{Metrics, Url},
};

/// Keeps the store up to date until dropped; `waiting` goes once everything was received.
pub async fn run(
    config: &Config,
    channel: Channel,
    store: Arc<Store>,
    (metrics, waiting): (Metrics, Blocker),
) {
    let (status, seen) = watch::channel(Status::default());
    let subscription = ambit_xds::Config {
        node: node(config),
        types: BoundDiscovery::TYPES.to_vec(),
        token_path: Some(config.token.clone()),
        cluster_id: config.cluster_id.clone(),
    };
    let connect = || std::future::ready(Ok(channel.clone()));
    let watched = watch_status(seen, metrics.clone(), waiting);
    let handler = Counted { inner: BoundDiscovery::new(store), metrics };
    tokio::join!(ambit_xds::run(subscription, connect, handler, status), watched);
}

/// Counts what arrives on its way to the store.
struct Counted {
    inner: BoundDiscovery,
    metrics: Metrics,
}

impl Handler for Counted {
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        let url = Url { url: type_url.to_owned() };
        let bytes: usize = resources.iter().map(|resource| resource.bytes.len()).sum();
        self.metrics.xds_messages.get_or_create(&url).inc();
        self.metrics.xds_bytes.get_or_create(&url).inc_by(bytes as u64);
        self.inner.apply(type_url, resources, removed)
    }

    fn complete(&mut self, type_url: &str) {
        self.inner.complete(type_url);
    }
}

/// Until the subscription ends.
async fn watch_status(mut status: watch::Receiver<Status>, metrics: Metrics, waiting: Blocker) {
    let mut waiting = Some(waiting);
    let (mut disconnects, mut nacks) = (0, 0);
    loop {
        {
            let now = status.borrow_and_update();
            if now.synced {
                waiting = None;
            }
            metrics.xds_disconnects.inc_by(now.disconnects - disconnects);
            metrics.xds_rejections.inc_by(now.nacks - nacks);
            (disconnects, nacks) = (now.disconnects, now.nacks);
        }
        if status.changed().await.is_err() {
            drop(waiting);
            return;
        }
    }
}

/// As Istio's waypoints introduce themselves; the operator feeds the services bound to `GATEWAY`.
fn node(config: &Config) -> Node {
    let Config { instance_ip, pod, gateway, .. } = config;
    let namespace = &pod.namespace;
    let metadata = [
        ("NAME", pod.name.to_string()),
        ("NAMESPACE", namespace.to_string()),
        ("GATEWAY", gateway.name.to_string()),
        ("INSTANCE_IPS", instance_ip.to_string()),
        ("NODE_NAME", config.node.clone()),
        ("CLUSTER_ID", config.cluster_id.clone()),
    ];
    Node {
        id: format!("waypoint~{instance_ip}~{}.{namespace}~{namespace}.svc.cluster.local", pod.name),
        metadata: metadata
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
    }
}
