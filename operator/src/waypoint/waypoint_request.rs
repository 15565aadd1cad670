//! Namespaces that request a waypoint by their label.

use ambit_api::labels;
use ambit_model::NamespacedName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A namespace that requests a waypoint of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaypointRequest {
    /// The requested Gateway, in the namespace itself.
    pub gateway: NamespacedName,
    /// Whether its pods are in the mesh: L7 requires L4.
    pub is_enrolled: bool,
}

impl WaypointRequest {
    /// The request of a namespace, if it is for a waypoint of its own.
    pub(crate) fn read(namespace: &ObjectMeta, is_enrolled: bool) -> Option<Self> {
        let own = namespace.name.as_deref()?;
        if namespace.deletion_timestamp.is_some() {
            return None;
        }
        let label = |key: &str| namespace.labels.as_ref()?.get(key).map(String::as_str);
        let name = label(labels::USE_WAYPOINT).filter(|name| !name.is_empty() && *name != labels::NONE)?;
        let is_own = label(labels::USE_WAYPOINT_NAMESPACE).is_none_or(|namespace| namespace == own);
        is_own.then(|| Self { gateway: NamespacedName::new(own, name), is_enrolled })
    }
}
