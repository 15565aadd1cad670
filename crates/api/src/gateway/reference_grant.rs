//! ReferenceGrant: who may name objects of another namespace. Every bundle of the Gateway API serves v1beta1.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Lets objects of other namespaces name objects of this one.
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
    /// Who may name, one of them.
    pub from: Vec<GrantFrom>,
    /// What may be named, one of it.
    pub to: Vec<GrantTo>,
}

/// Who may name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantFrom {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
}

/// What may be named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantTo {
    /// API group; empty is the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name; none is every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
