//! Nodes and namespaces: the little the model needs of their metadata.

use ambit_api::labels;
use ambit_model::Locality;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::label;

/// Where a node is.
pub(crate) fn locality(metadata: &ObjectMeta) -> Locality {
    let part = |key| label(metadata, key).unwrap_or_default().into();
    Locality { region: part(labels::REGION), zone: part(labels::ZONE), subzone: part(labels::SUBZONE) }
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
