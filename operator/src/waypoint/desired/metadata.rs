//! What all objects of a waypoint share: names, labels, owner; and what they depend on beside its Gateway.

use std::collections::BTreeMap;

use ambit_api::{MeshSpec, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use crate::waypoint::validate::Valid;

/// What is desired depends on, beside the waypoint itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Given<'a> {
    /// Image of the waypoint.
    pub image: &'a str,
    /// ClusterIP of the operator's Service.
    pub operator_ip: &'a str,
    /// What the Mesh says.
    pub mesh: &'a MeshSpec,
    /// Trust domain in force.
    pub trust_domain: &'a str,
    /// Life of certificates, seconds.
    pub certificate_seconds: u64,
    /// The Gateway, as owner of everything.
    pub owner: &'a OwnerReference,
    /// How many pods the autoscaler wants now.
    pub scaled: Option<i32>,
}

/// What tells our objects from everybody else's.
pub(super) fn managed_labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::GATEWAY_MANAGED.to_owned(), labels::WAYPOINT_MANAGED.to_owned()),
        (labels::MANAGED_BY.to_owned(), labels::FIELD_MANAGER.to_owned()),
    ])
}

/// The user's labels, then ours, which win.
fn object_labels(valid: &Valid) -> BTreeMap<String, String> {
    let mut all = valid.labels.clone();
    all.extend(managed_labels());
    all.insert(labels::GATEWAY_NAME.to_owned(), valid.name.name.to_string());
    all.insert(labels::GATEWAY_CLASS_NAME.to_owned(), valid.class.clone());
    all
}

pub(super) fn metadata(valid: &Valid, given: &Given<'_>) -> ObjectMeta {
    ObjectMeta {
        name: Some(valid.name.name.to_string()),
        namespace: Some(valid.name.namespace.to_string()),
        labels: Some(object_labels(valid)),
        annotations: annotations(valid),
        owner_references: Some(vec![given.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn annotations(valid: &Valid) -> Option<BTreeMap<String, String>> {
    (!valid.annotations.is_empty()).then(|| valid.annotations.clone())
}

pub(super) fn selector(valid: &Valid) -> BTreeMap<String, String> {
    BTreeMap::from([(labels::GATEWAY_NAME.to_owned(), valid.name.name.to_string())])
}

pub(super) fn pods(valid: &Valid) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(valid)), ..LabelSelector::default() }
}

/// A waypoint is never enrolled itself: it speaks HBONE of its own.
pub(super) fn pod_metadata(valid: &Valid) -> ObjectMeta {
    let mut all = object_labels(valid);
    all.insert(labels::DATAPLANE_MODE.to_owned(), labels::NONE.to_owned());
    ObjectMeta { labels: Some(all), annotations: annotations(valid), ..ObjectMeta::default() }
}
