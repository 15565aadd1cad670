//! The subscription to the operator: addresses and the services bound here, into the store.
//!
//! Invariant: not ready until both were received completely; from then on ready, also while the operator is unreachable.

use std::sync::Arc;

use ambit_runtime::Blocker;
use ambit_store::{BoundDiscovery, Store};
use ambit_xds::{Counters, Node, Proxy, Questions};
use tonic::transport::Channel;

use crate::config::Config;

/// Keeps the store up to date until dropped; drops `waiting` once everything was received.
pub async fn run(
    config: &Config,
    channel: Channel,
    (store, questions): (Arc<Store>, Questions),
    (counters, waiting): (Counters, Blocker),
) {
    let subscription = ambit_xds::Config {
        node: node(config),
        types: BoundDiscovery::TYPES.to_vec(),
        token_path: Some(config.proxy.token.clone()),
        cluster_id: config.proxy.cluster_id.clone(),
    };
    let connect = || std::future::ready(Ok(channel.clone()));
    ambit_xds::run_counted(
        subscription,
        connect,
        (BoundDiscovery::new(store), questions),
        (counters, waiting),
    )
    .await;
}

/// The operator sends the services that are bound to the Gateway named in `GATEWAY`.
fn node(config: &Config) -> Node {
    let proxy = &config.proxy;
    let node = Node::from(Proxy {
        kind: "waypoint",
        ip: proxy.instance_ip,
        pod: &proxy.pod,
        namespace: &proxy.namespace,
        node: &proxy.node,
        cluster_id: &proxy.cluster_id,
    });
    node.with("GATEWAY", config.gateway.name.to_string())
}
