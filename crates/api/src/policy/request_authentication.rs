//! `RequestAuthentication`: which tokens authenticate a request.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PolicyStatus, TargetReference, Unknown, WorkloadSelector};

/// Which tokens authenticate a request. A waypoint enforces it, so it requires targetRefs.
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
    doc = "Which tokens authenticate a request.",
    printcolumn(name = "Issuers", type_ = "string", json_path = ".spec.jwtRules[*].issuer"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct RequestAuthenticationSpec {
    /// Pods it applies to. Ztunnels do not see requests, so a policy with a selector is not enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// The object it is attached to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetReference>,
    /// The objects it is attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetReference>,
    /// Accepted issuers. A request with a token of any other issuer is rejected; a request without a token is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jwt_rules: Vec<JwtRule>,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// One accepted issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct JwtRule {
    /// Required value of the claim iss. If empty, every token that the keys of jwksUri have signed is accepted, regardless of its issuer.
    pub issuer: String,
    /// Accepted values of the claim aud; any one is sufficient. If empty, any audience is accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// URL of the key set, http or https. Exclusive with jwks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwks_uri: String,
    /// The key set (RFC 7517) as JSON. Exclusive with jwksUri.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwks: String,
    /// Headers that may hold a token. If no location is given, the authorization header is read, then the query parameter access_token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that may hold a token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_params: Vec<String>,
    /// Cookies that may hold a token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_cookies: Vec<String>,
    /// Claims that are space-separated lists, in addition to scope and permission.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub space_delimited_claims: Vec<String>,
    /// Timeout for fetching the key set from jwksUri. Defaults to 5s; values above 30s count as 30s.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timeout: String,
    /// Whether the token is forwarded to the service.
    pub forward_original_token: bool,
    /// Header that carries the token's payload to the service, base64url-encoded.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output_payload_to_header: String,
    /// Headers that carry single claims to the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Unknown fields; a policy with any is rejected.
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
    /// Text before the token, including the space.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A claim that the service receives as a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ClaimToHeader {
    /// Name of the header.
    pub header: String,
    /// Name of the claim; the parts of a nested claim are joined by dots.
    pub claim: String,
    /// Unknown fields; a policy with any is rejected.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}
