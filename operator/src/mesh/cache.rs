//! Watch caches of our own namespace.
//!
//! Invariant: a malformed object never stops a watch.

use std::fmt::Debug;

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, reflector, reflector::Store, watcher},
};
use serde::de::DeserializeOwned;

use crate::{names, state::Wake, watches::Watch};

/// Watch caches of our own namespace.
#[derive(Clone)]
pub(crate) struct MeshCaches {
    /// DaemonSets of the agents.
    pub daemon_sets: Store<DaemonSet>,
    /// Service accounts of the agents.
    pub service_accounts: Store<ServiceAccount>,
    /// ConfigMaps with trusted roots.
    pub config_maps: Store<ConfigMap>,
    /// Secrets with authorities.
    pub secrets: Store<Secret>,
    /// The operator's own Service.
    pub services: Store<Service>,
    /// Pods of the agents.
    pub pods: Store<Pod>,
}

/// Caches of our own namespace; every change wakes the reconcilers.
pub(crate) fn caches(client: &Client, wake: &Wake) -> (MeshCaches, Vec<Watch>) {
    let mut watches = Vec::new();
    let caches = MeshCaches {
        daemon_sets: cache(client, wake, &mut watches),
        service_accounts: cache(client, wake, &mut watches),
        config_maps: cache(client, wake, &mut watches),
        secrets: cache(client, wake, &mut watches),
        services: cache(client, wake, &mut watches),
        pods: cache(client, wake, &mut watches),
    };
    (caches, watches)
}

fn cache<K>(client: &Client, wake: &Wake, watches: &mut Vec<Watch>) -> Store<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let api = Api::<K>::namespaced(client.clone(), names::NAMESPACE);
    let events = reflector(writer, watcher(api, watcher::Config::default()).default_backoff());
    let wake = wake.clone();
    watches.push(Box::pin(async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if let Err(error) = event {
                tracing::warn!(kind = %K::kind(&()), %error, "A watch failed, restarting it");
            }
            wake.all();
        }
    }));
    store
}

/// Waits until every cache has received its first list.
pub(crate) async fn warm(caches: &MeshCaches) {
    let wait = |result: Result<(), _>| {
        if result.is_err() {
            tracing::debug!("A cache ended before it was filled")
        }
    };
    wait(caches.daemon_sets.wait_until_ready().await);
    wait(caches.service_accounts.wait_until_ready().await);
    wait(caches.config_maps.wait_until_ready().await);
    wait(caches.secrets.wait_until_ready().await);
    wait(caches.services.wait_until_ready().await);
    wait(caches.pods.wait_until_ready().await);
}
