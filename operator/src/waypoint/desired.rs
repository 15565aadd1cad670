//! The objects that a valid waypoint needs. Pure and total.

use std::collections::BTreeMap;

use ambit_model::HBONE_PORT;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        autoscaling::v2::{
            CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
            MetricTarget, ResourceMetricSource,
        },
        core::v1::{ConfigMap, PodTemplateSpec, Service, ServiceAccount, ServicePort, ServiceSpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};

use super::validate::ValidWaypoint;
use crate::names;

mod metadata;
mod pod;

use metadata::{managed_labels, metadata, pod_metadata, pods, selector};

pub(crate) use metadata::WaypointInputs;

/// CPU utilization above which the autoscaler adds pods, in percent of the request.
const CPU_PERCENT: i32 = 80;
/// Name of the port of `/healthz/ready` in the Service.
const STATUS_PORT: &str = "status-port";

/// The needed objects of one waypoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WaypointObjects {
    /// Its service account, without permissions.
    pub service_account: ServiceAccount,
    /// Its address.
    pub service: Service,
    /// Its pods.
    pub deployment: Deployment,
    /// Its autoscaler, if the number of pods may vary.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// Its disruption budget, if it has several pods.
    pub disruption_budget: Option<PodDisruptionBudget>,
}

/// The needed objects of one waypoint, except the roots, which the waypoints of a namespace share.
pub(crate) fn desired(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> WaypointObjects {
    let replicas = valid.replicas;
    WaypointObjects {
        service_account: ServiceAccount {
            metadata: metadata(valid, given),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        service: service(valid, given),
        deployment: deployment(valid, given),
        autoscaler: (replicas.max > replicas.min).then(|| autoscaler(valid, given)),
        disruption_budget: (replicas.min > 1).then(|| disruption_budget(valid, given)),
    }
}

/// The trusted roots in a namespace with waypoints, deleted with the last owner.
pub(crate) fn roots(namespace: &str, pem: &str, owners: Vec<OwnerReference>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::ROOTS.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(managed_labels()),
            owner_references: Some(owners),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(names::ROOTS_KEY.to_owned(), pem.to_owned())])),
        ..ConfigMap::default()
    }
}

/// All listeners share one port, which a Service may contain only once.
fn service(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> Service {
    let port = |name: &str, number: u16, protocol: &str| ServicePort {
        name: Some(name.to_owned()),
        port: number.into(),
        protocol: Some("TCP".into()),
        app_protocol: Some(protocol.into()),
        ..ServicePort::default()
    };
    let listener = valid.listeners.first().map(|name| port(name, HBONE_PORT, "hbone"));
    let status = port(STATUS_PORT, names::HEALTH_PORT, "http");
    Service {
        metadata: metadata(valid, given),
        spec: Some(ServiceSpec {
            ports: Some(listener.into_iter().chain([status]).collect()),
            selector: Some(selector(valid)),
            traffic_distribution: Some("PreferClose".into()),
            type_: Some("ClusterIP".into()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// A new pod is ready before an old one ends.
fn deployment(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> Deployment {
    let replicas = valid.replicas;
    let rolling = RollingUpdateDeployment {
        max_surge: Some(IntOrString::Int(1)),
        max_unavailable: Some(IntOrString::Int(0)),
    };
    Deployment {
        metadata: metadata(valid, given),
        spec: DeploymentSpec {
            // Also set when the autoscaler decides, to its value: an omitted field would be reset
            // to 1.
            replicas: Some(given.scaled.unwrap_or(replicas.min).clamp(replicas.min, replicas.max)),
            selector: pods(valid),
            strategy: Some(DeploymentStrategy {
                rolling_update: Some(rolling),
                type_: Some("RollingUpdate".into()),
            }),
            template: PodTemplateSpec {
                metadata: Some(pod_metadata(valid)),
                spec: Some(pod::spec(valid, given)),
            },
            ..DeploymentSpec::default()
        },
        ..Deployment::default()
    }
}

fn autoscaler(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> HorizontalPodAutoscaler {
    let cpu = ResourceMetricSource {
        name: "cpu".into(),
        target: MetricTarget {
            average_utilization: Some(CPU_PERCENT),
            type_: "Utilization".into(),
            ..MetricTarget::default()
        },
    };
    HorizontalPodAutoscaler {
        metadata: metadata(valid, given),
        spec: HorizontalPodAutoscalerSpec {
            min_replicas: Some(valid.replicas.min),
            max_replicas: valid.replicas.max,
            metrics: Some(vec![MetricSpec {
                resource: Some(cpu),
                type_: "Resource".into(),
                ..MetricSpec::default()
            }]),
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".into()),
                kind: "Deployment".into(),
                name: valid.name.name.to_string(),
            },
            ..HorizontalPodAutoscalerSpec::default()
        },
        ..HorizontalPodAutoscaler::default()
    }
}

/// One pod at a time may be evicted.
fn disruption_budget(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(valid, given),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(valid.replicas.min - 1)),
            selector: Some(pods(valid)),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

#[cfg(test)]
mod tests;
