//! Watch caches of all objects of waypoints.
//!
//! Invariant: a malformed object never stops a watch, and a kind whose CRD is missing counts as
//! listed and empty until it appears.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    state::Wake,
    watches::{Watch, decoded, is_not_served},
};
use ambit_api::{
    gateway::{Gateway, GatewayClass},
    labels,
};
use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;

/// Watch caches of all objects of waypoints. Objects created for Gateways are selected by label; of
/// ConfigMaps and Namespaces, only the metadata is cached.
#[derive(Clone)]
pub(crate) struct WaypointCaches {
    /// Gateways of all classes.
    pub gateways: Store<Gateway>,
    /// GatewayClasses of all controllers.
    pub classes: Store<GatewayClass>,
    /// Service accounts of waypoints.
    pub service_accounts: Store<ServiceAccount>,
    /// ConfigMaps with roots.
    pub config_maps: Store<ConfigMap>,
    /// Services of waypoints.
    pub services: Store<Service>,
    /// Deployments of waypoints.
    pub deployments: Store<Deployment>,
    /// Autoscalers of waypoints.
    pub autoscalers: Store<HorizontalPodAutoscaler>,
    /// Disruption budgets of waypoints.
    pub disruption_budgets: Store<PodDisruptionBudget>,
    /// Versions of all ConfigMaps; parameters are among them.
    pub versions: Store<PartialObjectMeta<ConfigMap>>,
    /// Labels of namespaces.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Whether the cluster serves Gateways and GatewayClasses.
    served: [Arc<AtomicBool>; 2],
}

impl WaypointCaches {
    /// Whether the cluster serves both Gateways and GatewayClasses.
    pub(crate) fn is_served(&self) -> bool {
        self.served.iter().all(|served| served.load(Ordering::Relaxed))
    }
}

/// The caches, and the watches that fill them; every change wakes the reconcilers.
pub(crate) fn caches(client: &Client, wake: &Wake) -> (WaypointCaches, Vec<Watch>) {
    let managed = watcher::Config::default().labels(&format!(
        "{}={}",
        labels::GATEWAY_MANAGED,
        labels::WAYPOINT_MANAGED
    ));
    let all = watcher::Config::default;
    let served = [Arc::default(), Arc::default()];
    let [gateways, classes] = &served;
    let built_in = Arc::default();
    let mut filler = Filler { client, wake, watches: Vec::new() };
    let caches = WaypointCaches {
        gateways: filler.full(all(), gateways),
        classes: filler.full(all(), classes),
        service_accounts: filler.full(managed.clone(), &built_in),
        config_maps: filler.full(managed.clone(), &built_in),
        services: filler.full(managed.clone(), &built_in),
        deployments: filler.full(managed.clone(), &built_in),
        autoscalers: filler.full(managed.clone(), &built_in),
        disruption_budgets: filler.full(managed, &built_in),
        versions: filler.metadata(),
        namespaces: filler.metadata(),
        served,
    };
    (caches, filler.watches)
}

/// Empty caches without watches.
#[cfg(test)]
pub(crate) fn empty() -> WaypointCaches {
    WaypointCaches {
        gateways: reflector::store().0,
        classes: reflector::store().0,
        service_accounts: reflector::store().0,
        config_maps: reflector::store().0,
        services: reflector::store().0,
        deployments: reflector::store().0,
        autoscalers: reflector::store().0,
        disruption_budgets: reflector::store().0,
        versions: reflector::store().0,
        namespaces: reflector::store().0,
        served: [Arc::default(), Arc::default()],
    }
}

/// Waits until every cache has received its first list.
pub(crate) async fn warm(caches: &WaypointCaches) {
    let wait = |result: Result<(), _>| {
        if result.is_err() {
            tracing::debug!("A cache ended before it was filled");
        }
    };
    wait(caches.gateways.wait_until_ready().await);
    wait(caches.classes.wait_until_ready().await);
    wait(caches.service_accounts.wait_until_ready().await);
    wait(caches.config_maps.wait_until_ready().await);
    wait(caches.services.wait_until_ready().await);
    wait(caches.deployments.wait_until_ready().await);
    wait(caches.autoscalers.wait_until_ready().await);
    wait(caches.disruption_budgets.wait_until_ready().await);
    wait(caches.versions.wait_until_ready().await);
    wait(caches.namespaces.wait_until_ready().await);
}

/// A kind that can be cached.
trait Cached: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}

impl<K> Cached for K where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}

struct Filler<'a> {
    client: &'a Client,
    wake: &'a Wake,
    watches: Vec<Watch>,
}

impl Filler<'_> {
    fn full<K: Cached>(&mut self, config: watcher::Config, served: &Arc<AtomicBool>) -> Store<K> {
        let events = watcher(Api::<DeserializeGuard<K>>::all(self.client.clone()), config).default_backoff();
        self.fill(events.map(|event| event.map(read)), served.clone())
    }

    /// Annotations may contain whole objects, and managed fields are never needed here.
    fn metadata<K: Cached>(&mut self) -> Store<PartialObjectMeta<K>> {
        let api = Api::<PartialObjectMeta<K>>::all(self.client.clone());
        let events = watcher(api, watcher::Config::default()).default_backoff().modify(|object| {
            object.metadata.annotations = None;
            object.metadata.managed_fields = None;
        });
        self.fill(events.map(|event| event.map(Some)), Arc::default())
    }

    fn fill<K>(
        &mut self,
        events: impl futures::Stream<Item = watcher::Result<Option<watcher::Event<K>>>> + Send + 'static,
        served: Arc<AtomicBool>,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Default,
    {
        let (store, mut writer) = reflector::store();
        let wake = self.wake.clone();
        self.watches.push(Box::pin(async move {
            let mut events = std::pin::pin!(events);
            let mut is_missing = false;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        if matches!(event, Some(watcher::Event::InitDone)) {
                            is_missing = false;
                            served.store(true, Ordering::Relaxed);
                        }
                        event.iter().for_each(|event| writer.apply_watcher_event(event));
                    }
                    Err(error) if is_not_served(&error) => {
                        served.store(false, Ordering::Relaxed);
                        if !std::mem::replace(&mut is_missing, true) {
                            writer.apply_watcher_event(&watcher::Event::Init);
                            writer.apply_watcher_event(&watcher::Event::InitDone);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(kind = %K::kind(&()), %error, "A watch failed, restarting it");
                        continue;
                    }
                }
                wake.all();
            }
        }));
        store
    }
}

/// Skips malformed objects.
fn read<K: Cached>(event: watcher::Event<DeserializeGuard<K>>) -> Option<watcher::Event<K>> {
    let object = |guard| decoded(guard, &K::kind(&()));
    match event {
        watcher::Event::Apply(guard) => object(guard).map(watcher::Event::Apply),
        watcher::Event::Delete(guard) => object(guard).map(watcher::Event::Delete),
        watcher::Event::InitApply(guard) => object(guard).map(watcher::Event::InitApply),
        watcher::Event::Init => Some(watcher::Event::Init),
        watcher::Event::InitDone => Some(watcher::Event::InitDone),
    }
}
