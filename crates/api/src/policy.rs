//! `security.istio.io/v1` kinds that the mesh honours, field by field as Istio defines them.
//!
//! Fields that node proxies cannot enforce are typed too, so that the translation can say which ones a policy uses.

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

/// Which pods of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels that a pod must have, all of them.
    pub match_labels: BTreeMap<String, String>,
}

/// The object a policy is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
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
}

/// Status of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(schema_with = "any_status")]
pub struct PolicyStatus {
    /// What each enforcement point makes of it.
    pub conditions: Vec<PolicyCondition>,
}

/// One condition of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyCondition {
    /// Which aspect.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When the status last changed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// Generation of the spec that it speaks of.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number_or_text")]
    pub observed_generation: Option<i64>,
}

/// Istio's own controllers write this number as text.
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

/// Other controllers write fields of their own into it.
fn any_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What each enforcement point makes of the policy.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}
