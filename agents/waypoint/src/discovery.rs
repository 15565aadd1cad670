//! The subscription to the operator: addresses and the services bound here, into the store.
//!
//! Invariant: not ready until both were received completely; from then on ready, also while the operator is away.

use std::{collections::BTreeMap, sync::Arc};

use ambit_runtime::Blocker;
use ambit_store::{BoundDiscovery, Store};
use ambit_xds::{Node, Status};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::config::Config;

/// Keeps the store up to date until dropped; `waiting` goes once everything was received.
pub async fn run(config: &Config, channel: Channel, store: Arc<Store>, waiting: Blocker) {
    let (status, seen) = watch::channel(Status::default());
    let subscription = ambit_xds::Config {
        node: node(config),
        types: BoundDiscovery::TYPES.to_vec(),
        token_path: Some(config.token.clone()),
        cluster_id: config.cluster_id.clone(),
    };
    let connect = || std::future::ready(Ok(channel.clone()));
    let handler = BoundDiscovery::new(store);
    tokio::join!(ambit_xds::run(subscription, connect, handler, status), synced(seen, waiting));
}

async fn synced(mut status: watch::Receiver<Status>, waiting: Blocker) {
    // Ends early only with the subscription itself.
    if status.wait_for(|status| status.synced).await.is_ok() {
        drop(waiting);
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
