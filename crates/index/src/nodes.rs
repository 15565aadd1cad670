//! The metadata of nodes and namespaces that the model needs.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::labels;
use ambit_model::Locality;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{object::label, services::Distribution, waypoints::binding::WaypointLabel};

/// The facts about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// Its region and zone.
    pub locality: Locality,
    /// Uid of the Node object, which changes when the node registers again.
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

/// The requested data plane mode of a namespace or pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DataplaneMode {
    /// No label, or an unknown value.
    #[default]
    Unset,
    /// `ambient`
    Ambient,
    /// `none`
    None,
}

/// Parses the data plane mode label.
pub(crate) fn dataplane_mode(metadata: &ObjectMeta) -> DataplaneMode {
    match label(metadata, labels::DATAPLANE_MODE) {
        Some(labels::AMBIENT) => DataplaneMode::Ambient,
        Some(labels::NONE) => DataplaneMode::None,
        Some(_) | None => DataplaneMode::Unset,
    }
}

/// The facts about a namespace that the model needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamespaceFacts {
    pub(crate) mode: DataplaneMode,
    /// The waypoint for objects in it that do not request one themselves.
    pub(crate) waypoint_label: WaypointLabel,
    pub(crate) labels: BTreeMap<String, String>,
    /// The traffic distribution of Services that do not set one.
    pub(crate) distribution: Option<Distribution>,
}

impl NamespaceFacts {
    /// Parses the metadata of a namespace.
    pub(crate) fn read(metadata: &ObjectMeta) -> Self {
        let name: Arc<str> = metadata.name.as_deref().unwrap_or_default().into();
        Self {
            mode: dataplane_mode(metadata),
            waypoint_label: WaypointLabel::read(metadata.labels.as_ref(), &name),
            labels: metadata.labels.clone().unwrap_or_default(),
            distribution: Distribution::annotated(metadata),
        }
    }
}
