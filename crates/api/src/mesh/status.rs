//! Status of a `Mesh`: observed counts and conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Observed state of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshStatus {
    /// Generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version that every node runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Nodes, and how many of them are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesStatus>,
    /// Pods in the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workloads: Option<WorkloadsStatus>,
    /// Waypoints, and how many of them are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoints: Option<WaypointsStatus>,
    /// The certificate authority in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustStatus>,
    /// Accepted, TrustReady, DataPlaneReady, Progressing and Ready, with reasons.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Nodes, and how many of them are ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodesStatus {
    /// Nodes that should run the agents.
    pub desired: i32,
    /// Nodes whose node agent and ztunnel are both ready.
    pub ready: i32,
    /// Nodes that run the current pod template of both agents.
    pub updated: i32,
    /// Ready of desired, for the printed column.
    pub summary: String,
}

/// Pods in the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadsStatus {
    /// Pods whose traffic the mesh carries.
    pub enrolled: i32,
    /// Pods that are being enrolled or removed. A pod for which that fails has an Event.
    pub pending: i32,
}

/// Waypoints, and how many of them are ready. The status of each is on its Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WaypointsStatus {
    /// Gateways of the mesh's classes.
    pub total: i32,
    /// Gateways with at least one ready pod.
    pub ready: i32,
}

/// The certificate authority in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustStatus {
    /// Pending until the authority can issue certificates, then Stable.
    pub phase: TrustPhase,
    /// Trust domain in force. It stays even if the spec is changed later.
    pub domain: String,
    /// Root certificates that proxies trust.
    pub roots: Vec<TrustRoot>,
}

/// Phase of the certificate authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TrustPhase {
    /// No authority can issue certificates yet.
    #[default]
    Pending,
    /// One authority issues certificates.
    Stable,
}

/// A root certificate that proxies trust.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustRoot {
    /// SHA-256 fingerprint of the certificate.
    pub sha256: String,
    /// When it expires, RFC 3339.
    pub not_after: String,
}

/// The schema of `metav1.Condition`, a map by type so that writers do not overwrite each other.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Accepted, TrustReady, DataPlaneReady, Progressing and Ready, with reasons.",
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the observed state.",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "description": "Which aspect.", "maxLength": 316},
                "status": {"type": "string", "description": "True, False or Unknown.", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string", "description": "Reason for the status, in CamelCase.", "minLength": 1, "maxLength": 1024},
                "message": {"type": "string", "description": "Why, for people.", "maxLength": 32768},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When the status last changed."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "Generation of the spec that the condition describes."}
            }
        }
    })
}
