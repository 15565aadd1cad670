//! `PeerAuthentication`: whether a workload accepts plaintext.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PolicyStatus, Unknown, WorkloadSelector};

/// Whether workloads accept plaintext. Without a selector it applies to its namespace, and in ambit-system and istio-system to the whole mesh.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "PeerAuthentication",
    namespaced,
    plural = "peerauthentications",
    singular = "peerauthentication",
    shortname = "pa",
    category = "istio-io",
    category = "security-istio-io",
    derive = "PartialEq",
    status = "PolicyStatus",
    doc = "Whether workloads accept plaintext in addition to mutual TLS.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mtls.mode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PeerAuthenticationSpec {
    /// Pods it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Mode for every port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTls>,
    /// Modes for single ports of the workload; requires a selector.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Whether plaintext is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MutualTls {
    /// UNSET inherits from the next wider scope. DISABLE is treated as PERMISSIVE, because traffic that arrives through a tunnel is not refused.
    pub mode: MutualTlsMode,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Whether plaintext is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum MutualTlsMode {
    /// Inherits from the next wider scope.
    #[default]
    Unset,
    /// Treated as PERMISSIVE.
    Disable,
    /// Mutual TLS or plaintext.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
