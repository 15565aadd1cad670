//! `security.istio.io/v1` kinds that the mesh honours, field by field as Istio defines them.
//!
//! Fields that ztunnels cannot enforce are typed too, so that a condition can name those that a policy uses.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

mod authorization;
mod peer_authentication;
mod request_authentication;

pub use authorization::{
    Action, AuthorizationPolicy, AuthorizationPolicySpec, Condition, ExtensionProvider, From, Operation,
    Rule, Source, To,
};
pub use peer_authentication::{MutualTls, MutualTlsMode, PeerAuthentication, PeerAuthenticationSpec};
pub use request_authentication::{
    ClaimToHeader, JwtHeader, JwtRule, RequestAuthentication, RequestAuthenticationSpec,
};

/// Unknown fields, kept because a policy that uses one must not be read as if it did not.
pub type Unknown = BTreeMap<String, serde_json::Value>;

/// Selects pods of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct WorkloadSelector {
    /// Labels that a pod must have, all of them. There are no wildcards.
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// The object a policy is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct TargetReference {
    /// API group of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Namespace of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Status of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(schema_with = "any_status")]
pub struct PolicyStatus {
    /// Conditions, one for each enforcement point.
    pub conditions: Vec<PolicyCondition>,
}

/// One condition of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyCondition {
    /// Condition type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason for the status, in CamelCase.
    pub reason: String,
    /// Explanation for human readers.
    pub message: String,
    /// When the status last changed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// Generation of the spec that the condition describes.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number_or_text")]
    pub observed_generation: Option<i64>,
}

/// Istio's own controllers write this number as a string.
fn number_or_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(match serde_json::Value::deserialize(from)? {
        serde_json::Value::Number(number) => number.as_i64(),
        serde_json::Value::String(text) => text.parse().ok(),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    })
}

/// Open, because other controllers add fields of their own.
fn any_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Whether each enforcement point enforces the policy.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// The validation rules of Istio's CRDs: a `*` looks like a wildcard and would select nothing.
fn labels(_: &mut SchemaGenerator) -> Schema {
    let refuses = |rule: &str, message: &str| serde_json::json!([{"rule": rule, "message": message}]);
    json_schema!({
        "description": "Labels that a pod must have, all of them. There are no wildcards.",
        "type": "object",
        "maxProperties": 4096,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": refuses("!self.contains('*')", "wildcard not allowed in label value match")
        },
        "x-kubernetes-validations": [
            {"rule": "self.all(key, !key.contains('*'))", "message": "wildcard not allowed in label key match"},
            {"rule": "self.all(key, key.size() != 0)", "message": "key must not be empty"}
        ]
    })
}
