//! `AuthorizationPolicy`: which clients may connect to which workloads.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{PolicyStatus, TargetReference, Unknown, WorkloadSelector};

/// Which clients may connect to which workloads. Without a selector it applies to its namespace, and in ambit-system and istio-system to the whole mesh.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "AuthorizationPolicy",
    namespaced,
    plural = "authorizationpolicies",
    singular = "authorizationpolicy",
    shortname = "ap",
    category = "istio-io",
    category = "security-istio-io",
    derive = "PartialEq",
    status = "PolicyStatus",
    doc = "Which clients may connect to which workloads.",
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct AuthorizationPolicySpec {
    /// Pods it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// The object it is attached to. A waypoint enforces it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetReference>,
    /// The objects it is attached to. Waypoints enforce it then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetReference>,
    /// Alternatives. An ALLOW policy without rules allows nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What happens to a matching request. Defaults to ALLOW.
    #[schemars(schema_with = "action")]
    pub action: Action,
    /// The external authorization provider, for action CUSTOM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ExtensionProvider>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// What happens to a matching request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Allow it.
    #[default]
    Allow,
    /// Deny it.
    Deny,
    /// Log it only.
    Audit,
    /// Let an external provider decide.
    Custom,
}

impl Action {
    /// The value, as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

/// Without a default: Istio's CRD has none, and a default here would show as drift.
fn action(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What happens to a matching request. Defaults to ALLOW.",
        "type": "string",
        "enum": ["ALLOW", "DENY", "AUDIT", "CUSTOM"]
    })
}

/// The external authorization provider, for action CUSTOM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ExtensionProvider {
    /// Name of the provider in the Mesh.
    pub name: String,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// One alternative of a policy: from, to and when must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Rule {
    /// Clients, one of which must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<From>,
    /// Operations, one of which must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<To>,
    /// Conditions, all of which must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// One alternative for the client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct From {
    /// Properties of the client.
    pub source: Source,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// One alternative for the operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct To {
    /// Properties of the connection or request.
    pub operation: Operation,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Properties of the client: all given fields must match; the values of a field are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Source {
    /// Identities proven by mTLS: cluster.local/ns/shop/sa/cart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<String>,
    /// Excluded identities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<String>,
    /// Identities from a request's validated token (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_principals: Vec<String>,
    /// Excluded identities from a request's token (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_request_principals: Vec<String>,
    /// Namespaces of the client's identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Excluded namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<String>,
    /// Service accounts of the client's identity: cart, or shop/cart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    /// Excluded service accounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the client's identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust_domains: Vec<String>,
    /// Excluded trust domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_trust_domains: Vec<String>,
    /// Addresses or CIDRs of the direct peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_blocks: Vec<String>,
    /// Excluded addresses or CIDRs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ip_blocks: Vec<String>,
    /// Addresses or CIDRs of the original client, as X-Forwarded-For states it (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remote_ip_blocks: Vec<String>,
    /// Excluded addresses or CIDRs of the original client (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_remote_ip_blocks: Vec<String>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Properties of a connection or request: all given fields must match; the values of a field are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Operation {
    /// Hosts (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Excluded hosts (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<String>,
    /// Destination ports of the workload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Excluded ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<String>,
    /// Methods (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Excluded methods (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<String>,
    /// Paths (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Excluded paths (L7).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<String>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// One condition: the key's value must be among values and not among notValues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Condition {
    /// Attribute: source.ip, source.namespace, source.principal, source.serviceAccount, source.trustDomain,
    /// destination.ip, destination.port, or an L7 attribute.
    pub key: String,
    /// Values, one of which must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Values, none of which may match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_values: Vec<String>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}
