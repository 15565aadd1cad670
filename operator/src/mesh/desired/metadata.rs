//! Properties common to all objects of the agents: name, labels, owner; and their inputs in
//! addition to the spec.

use std::collections::BTreeMap;

use ambit_api::labels;
use k8s_openapi::{
    api::core::v1::Toleration,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};

use crate::{config::Images, names};

/// Inputs of the needed objects in addition to the spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MeshInputs<'a> {
    /// Images of the components.
    pub images: &'a Images,
    /// ClusterIP of the operator's Service; without it no agent can start.
    pub operator_ip: Option<&'a str>,
    /// Trusted roots as PEM; without them no agent can start.
    pub roots: Option<&'a str>,
    /// The Mesh, as the owner of all objects.
    pub owner: Option<OwnerReference>,
}

pub(super) fn metadata(name: &str, given: &MeshInputs<'_>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(names::NAMESPACE.to_owned()),
        labels: Some(object_labels(name)),
        owner_references: given.owner.clone().map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn object_labels(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::APP.to_owned(), app.to_owned()),
        (labels::MANAGED_BY.to_owned(), labels::FIELD_MANAGER.to_owned()),
        (labels::MESH.to_owned(), labels::MESH_NAME.to_owned()),
    ])
}

/// Our own pods are never enrolled.
pub(super) fn pod_metadata(app: &str) -> ObjectMeta {
    let labels = BTreeMap::from([
        (labels::APP.to_owned(), app.to_owned()),
        (labels::MESH.to_owned(), labels::MESH_NAME.to_owned()),
        (labels::DATAPLANE_MODE.to_owned(), labels::NONE.to_owned()),
    ]);
    ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
}

pub(super) fn selector(app: &str) -> LabelSelector {
    let labels = BTreeMap::from([(labels::APP.to_owned(), app.to_owned())]);
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// Runs on every node, whatever its taints.
pub(super) fn tolerations() -> Vec<Toleration> {
    vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]
}
