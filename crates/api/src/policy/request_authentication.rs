//! RequestAuthentication: whose tokens vouch for a request.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PolicyStatus, TargetReference, Unknown, WorkloadSelector};

/// Whose tokens vouch for a request. A waypoint enforces it, so it needs targetRefs.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "RequestAuthentication",
    namespaced,
    plural = "requestauthentications",
    singular = "requestauthentication",
    shortname = "ra",
    category = "istio-io",
    category = "security-istio-io",
    derive = "PartialEq",
    status = "PolicyStatus",
    doc = "Whose tokens vouch for a request.",
    printcolumn(name = "Issuers", type_ = "string", json_path = ".spec.jwtRules[*].issuer"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct RequestAuthenticationSpec {
    /// Pods it applies to. Node proxies see no requests, so a policy with a selector is not enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// The object it is attached to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetReference>,
    /// The objects it is attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetReference>,
    /// Issuers. A request with a token that none of them issued is refused; one without a token is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jwt_rules: Vec<JwtRule>,
    /// Fields that are not known here; the policy is refused for them.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// One issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct JwtRule {
    /// What the claim iss must be. Without it, whatever the keys of jwksUri signed is believed, whoever issued it.
    pub issuer: String,
    /// One of these must be in the claim aud; none takes any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Where the key set is fetched, http or https. Either this or jwks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwks_uri: String,
    /// The key set (RFC 7517), as JSON. Either this or jwksUri.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwks: String,
    /// Headers that may hold a token. Without any place: the authorization header, then the parameter access_token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that may hold a token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_params: Vec<String>,
    /// Cookies that may hold a token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_cookies: Vec<String>,
    /// Claims whose text is a list with spaces between, beside scope and permission.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub space_delimited_claims: Vec<String>,
    /// How long fetching the key set may take. It is checked and not used: the operator gives every fetch 10 seconds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timeout: String,
    /// Whether the service gets the token too.
    pub forward_original_token: bool,
    /// Header in which the service gets the token's payload, base64url.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output_payload_to_header: String,
    /// Headers in which the service gets single claims.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Fields that are not known here; the policy is refused for them.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A header that may hold a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct JwtHeader {
    /// Name of the header.
    pub name: String,
    /// What stands before the token, its space too.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Fields that are not known here; the policy is refused for them.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A claim that the service gets as a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ClaimToHeader {
    /// Name of the header.
    pub header: String,
    /// Name of the claim; nested ones are joined by dots.
    pub claim: String,
    /// Fields that are not known here; the policy is refused for them.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}
