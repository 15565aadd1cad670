//! Nodes and namespaces: the little the model needs of their metadata.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::labels;
use ambit_model::Locality;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{object::label, services::Distribution, waypoints::binding::Wish};

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// Where it is.
    pub locality: Locality,
    /// Of its object: another one once it has registered again.
    pub uid: Arc<str>,
}

impl NodeFacts {
    pub(crate) fn read(metadata: &ObjectMeta) -> Self {
        let part = |key| label(metadata, key).unwrap_or_default().into();
        let (region, zone, subzone) = (part(labels::REGION), part(labels::ZONE), part(labels::SUBZONE));
        let uid = metadata.uid.as_deref().unwrap_or_default().into();
        Self { locality: Locality { region, zone, subzone }, uid }
    }
}

/// What the label of a namespace or pod asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DataplaneMode {
    /// No label, or a value of another mesh.
    #[default]
    Unset,
    /// `ambient`
    Ambient,
    /// `none`
    None,
}

/// What the label asks for.
pub(crate) fn dataplane_mode(metadata: &ObjectMeta) -> DataplaneMode {
    match label(metadata, labels::DATAPLANE_MODE) {
        Some(labels::AMBIENT) => DataplaneMode::Ambient,
        Some(labels::NONE) => DataplaneMode::None,
        Some(_) | None => DataplaneMode::Unset,
    }
}

/// What the model needs of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamespaceFacts {
    pub(crate) mode: DataplaneMode,
    /// What its objects ask for that do not say otherwise.
    pub(crate) wish: Wish,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where the traffic of its Services goes that do not say.
    pub(crate) distribution: Option<Distribution>,
}

impl NamespaceFacts {
    /// Reads the metadata of a namespace.
    pub(crate) fn read(metadata: &ObjectMeta) -> Self {
        let name: Arc<str> = metadata.name.as_deref().unwrap_or_default().into();
        Self {
            mode: dataplane_mode(metadata),
            wish: Wish::read(metadata.labels.as_ref(), &name),
            labels: metadata.labels.clone().unwrap_or_default(),
            distribution: Distribution::annotated(metadata),
        }
    }
}
