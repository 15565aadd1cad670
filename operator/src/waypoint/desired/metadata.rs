//! Properties common to all objects of a waypoint: names, labels, owner; and their inputs in
//! addition to the Gateway.

use std::collections::BTreeMap;

use ambit_api::{MeshSpec, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use crate::waypoint::validate::ValidWaypoint;

/// Inputs in addition to the waypoint itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct WaypointInputs<'a> {
    /// Image of the waypoint.
    pub image: &'a str,
    /// ClusterIP of the operator's Service.
    pub operator_ip: &'a str,
    /// Spec of the Mesh.
    pub mesh: &'a MeshSpec,
    /// Current trust domain.
    pub trust_domain: &'a str,
    /// Lifetime of certificates in seconds.
    pub certificate_seconds: u64,
    /// The Gateway, as the owner of all objects.
    pub owner: &'a OwnerReference,
    /// Number of pods that the autoscaler wants.
    pub scaled: Option<i32>,
}

/// The labels that distinguish our objects from those of others.
pub(super) fn managed_labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::GATEWAY_MANAGED.to_owned(), labels::WAYPOINT_MANAGED.to_owned()),
        (labels::MANAGED_BY.to_owned(), labels::FIELD_MANAGER.to_owned()),
    ])
}

/// The user's labels, overridden by ours.
fn object_labels(valid: &ValidWaypoint) -> BTreeMap<String, String> {
    let mut all = valid.labels.clone();
    all.extend(managed_labels());
    all.insert(labels::GATEWAY_NAME.to_owned(), valid.name.name.to_string());
    all.insert(labels::GATEWAY_CLASS_NAME.to_owned(), valid.class.clone());
    all
}

pub(super) fn metadata(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> ObjectMeta {
    ObjectMeta {
        name: Some(valid.name.name.to_string()),
        namespace: Some(valid.name.namespace.to_string()),
        labels: Some(object_labels(valid)),
        annotations: annotations(valid),
        owner_references: Some(vec![given.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn annotations(valid: &ValidWaypoint) -> Option<BTreeMap<String, String>> {
    (!valid.annotations.is_empty()).then(|| valid.annotations.clone())
}

pub(super) fn selector(valid: &ValidWaypoint) -> BTreeMap<String, String> {
    BTreeMap::from([(labels::GATEWAY_NAME.to_owned(), valid.name.name.to_string())])
}

pub(super) fn pods(valid: &ValidWaypoint) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(valid)), ..LabelSelector::default() }
}

/// A waypoint is never enrolled itself, because it terminates HBONE itself.
pub(super) fn pod_metadata(valid: &ValidWaypoint) -> ObjectMeta {
    let mut all = object_labels(valid);
    all.insert(labels::DATAPLANE_MODE.to_owned(), labels::NONE.to_owned());
    ObjectMeta { labels: Some(all), annotations: annotations(valid), ..ObjectMeta::default() }
}
