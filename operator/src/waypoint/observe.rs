//! The inputs of decisions about waypoints, read from watch caches; no API calls are made here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ambit_api::{
    gateway::{Gateway, GatewayClass},
    labels,
    mesh::WaypointsStatus,
};
use ambit_index::{Index, Waypoint, name_of};
use ambit_model::NamespacedName;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt};

use super::{cache::WaypointCaches, waypoint_request::WaypointRequest};

/// The inputs of decisions.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaypointWorld {
    /// Current time.
    pub now: Timestamp,
    /// Gateways of all classes, sorted by name.
    pub gateways: Vec<Arc<Gateway>>,
    /// GatewayClasses of all controllers.
    pub classes: Vec<Arc<GatewayClass>>,
    /// Service accounts of waypoints.
    pub service_accounts: Vec<Arc<ServiceAccount>>,
    /// ConfigMaps with roots.
    pub config_maps: Vec<Arc<ConfigMap>>,
    /// Services of waypoints.
    pub services: Vec<Arc<Service>>,
    /// Deployments of waypoints.
    pub deployments: Vec<Arc<Deployment>>,
    /// Autoscalers of waypoints.
    pub autoscalers: Vec<Arc<HorizontalPodAutoscaler>>,
    /// Disruption budgets of waypoints.
    pub disruption_budgets: Vec<Arc<PodDisruptionBudget>>,
    /// Resource versions of ConfigMaps, by name.
    pub versions: BTreeMap<NamespacedName, String>,
    /// Namespaces that request a waypoint of their own.
    pub requests: Vec<WaypointRequest>,
    /// Waypoints that are published to clients, or may still get their traffic.
    pub in_use: BTreeSet<NamespacedName>,
    /// Number of routes of the services of each waypoint.
    pub routes: BTreeMap<NamespacedName, i32>,
    /// Whether the cluster serves Gateways and GatewayClasses.
    pub is_served: bool,
}

/// Observes everything.
pub(crate) fn observe(caches: &WaypointCaches, index: &Index, now: Timestamp) -> WaypointWorld {
    let mut gateways = caches.gateways.state();
    gateways.sort_by_key(|gateway| name_of(&gateway.metadata));
    let versions = caches.versions.state();
    let version = |object: &Arc<_>| {
        let object: &kube::core::PartialObjectMeta<ConfigMap> = object;
        Some((name_of(&object.metadata), object.resource_version()?))
    };
    let enrolled = &index.node_enrollment().enrolled_namespaces;
    let requests = caches.namespaces.state();
    let known: Vec<Waypoint> = index.waypoints().collect();
    WaypointWorld {
        now,
        gateways,
        classes: caches.classes.state(),
        service_accounts: caches.service_accounts.state(),
        config_maps: caches.config_maps.state(),
        services: caches.services.state(),
        deployments: caches.deployments.state(),
        autoscalers: caches.autoscalers.state(),
        disruption_budgets: caches.disruption_budgets.state(),
        versions: versions.iter().filter_map(version).collect(),
        requests: requests
            .iter()
            .filter_map(|namespace| {
                let name = namespace.metadata.name.as_deref()?;
                WaypointRequest::read(&namespace.metadata, enrolled.contains(name))
            })
            .collect(),
        in_use: known.iter().filter(|waypoint| waypoint.bound > 0).map(|w| w.name.clone()).collect(),
        routes: known.into_iter().map(|waypoint| (waypoint.name, count(waypoint.routes))).collect(),
        is_served: caches.is_served(),
    }
}

impl WaypointWorld {
    /// Gateways that are waypoints of this controller.
    pub(crate) fn waypoints(&self) -> impl Iterator<Item = &Gateway> {
        self.gateways.iter().map(Arc::as_ref).filter(|gateway| self.is_ours(gateway))
    }

    /// Whether a Gateway's class belongs to this controller.
    pub(crate) fn is_ours(&self, gateway: &Gateway) -> bool {
        let class = self.classes.iter().find(|class| class.name_any() == gateway.spec.gateway_class_name);
        class.is_some_and(|class| class.spec.controller_name == labels::WAYPOINT_CONTROLLER)
    }

    /// Deployment of a waypoint.
    pub(crate) fn deployment(&self, name: &NamespacedName) -> Option<&Deployment> {
        find(&self.deployments, name)
    }

    /// ClusterIP of a waypoint.
    pub(crate) fn service_ip(&self, name: &NamespacedName) -> Option<&str> {
        let ip = find(&self.services, name)?.spec.as_ref()?.cluster_ip.as_deref();
        ip.filter(|ip| !ip.is_empty() && *ip != "None")
    }

    /// Number of ready pods of a waypoint.
    pub(crate) fn ready_pods(&self, name: &NamespacedName) -> i32 {
        let status = self.deployment(name).and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.ready_replicas).unwrap_or_default()
    }

    /// The counts of waypoints in the Mesh's status.
    pub(crate) fn counted(&self) -> WaypointsStatus {
        let names: Vec<NamespacedName> = self.waypoints().map(|gateway| name_of(&gateway.metadata)).collect();
        let ready = names.iter().filter(|name| self.ready_pods(name) > 0).count();
        WaypointsStatus { total: count(names.len()), ready: count(ready) }
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn find<'a, K: Resource>(objects: &'a [Arc<K>], name: &NamespacedName) -> Option<&'a K> {
    objects.iter().map(Arc::as_ref).find(|object| name_of(object.meta()) == *name)
}
