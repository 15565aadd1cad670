//! `ReferenceGrant`: allows references from another namespace. Every release of the Gateway API serves v1beta1.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Allows objects of other namespaces to refer to objects of this one.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1beta1",
    kind = "ReferenceGrant",
    plural = "referencegrants",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ReferenceGrantSpec {
    /// Objects that may refer; any entry is sufficient.
    pub from: Vec<GrantFrom>,
    /// Objects that may be referred to; any entry is sufficient.
    pub to: Vec<GrantTo>,
}

/// Objects that may refer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantFrom {
    /// API group of the referring object.
    pub group: String,
    /// Kind of the referring object.
    pub kind: String,
    /// Namespace of the referring object.
    pub namespace: String,
}

/// Objects that may be referred to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantTo {
    /// API group of the target; empty is the core group.
    pub group: String,
    /// Kind of the target.
    pub kind: String,
    /// Name of the target; defaults to all of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
