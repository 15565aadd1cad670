//! The subscription to the operator: addresses and policies into the store.
//!
//! Invariant: not ready until both were received completely; from then on ready, also while the operator is away.

use std::sync::Arc;

use ambit_runtime::{Blocker, env::ProxyConfig};
use ambit_store::{Discovery, Store};
use ambit_xds::{Counters, Node, Proxy, Questions};
use tonic::transport::Channel;

/// Keeps the store up to date until dropped; `waiting` goes once everything was received.
pub async fn run(
    config: &ProxyConfig,
    channel: Channel,
    (store, questions): (Arc<Store>, Questions),
    (counters, waiting): (Counters, Blocker),
) {
    let subscription = ambit_xds::Config {
        node: node(config),
        types: Discovery::TYPES.to_vec(),
        token_path: Some(config.token.clone()),
        cluster_id: config.cluster_id.clone(),
    };
    let connect = || std::future::ready(Ok(channel.clone()));
    ambit_xds::run_counted(subscription, connect, (Discovery::new(store), questions), (counters, waiting))
        .await;
}

fn node(config: &ProxyConfig) -> Node {
    Node::from(Proxy {
        kind: "ztunnel",
        ip: config.instance_ip,
        pod: &config.pod,
        namespace: &config.namespace,
        node: &config.node,
        cluster_id: &config.cluster_id,
    })
}
