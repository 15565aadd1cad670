//! External authorization providers for policies with action CUSTOM. Names and fields are those of Istio's MeshConfig.
//!
//! Invariant: every default is set here, and a provider receives only what these fields name.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a constant")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A provider of external authorization: exactly one of envoyExtAuthzGrpc and envoyExtAuthzHttp.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.envoyExtAuthzGrpc) != has(self.envoyExtAuthzHttp)").message("give exactly one of envoyExtAuthzGrpc and envoyExtAuthzHttp"))]
pub struct ExtensionProvider {
    /// Name that AuthorizationPolicies use in `provider.name`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Called over gRPC, `envoy.service.auth.v3.Authorization/Check`, for example OPA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
    /// Called with an HTTP request of the same method, path and host as the client's, for example oauth2-proxy. Status 200 allows the request; 500 and above count as
    /// a failed check; any other status is returned to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
}

/// A provider that is called over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthzGrpc {
    /// The Service: `<namespace>/<name>`, or its DNS name. Waypoints reach its pods through the mesh, without passing its own waypoint.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Timeout of one check, at most 10m. (Istio's default is 10m.)
    #[serde(default = "timeout")]
    #[schemars(regex(pattern = crate::duration::PATTERN))]
    pub timeout: String,
    /// Whether a request is allowed if the check fails. A client that can make the provider fail is then allowed too.
    #[serde(default)]
    pub fail_open: bool,
    /// HTTP status that the client gets if the check fails.
    #[serde(default = "status_on_error")]
    #[schemars(regex(pattern = r"^[45][0-9][0-9]$"))]
    pub status_on_error: String,
    /// How much of the request body the provider receives. If unset, it receives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<RequestBodyInCheck>,
}

/// A provider that is called over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthzHttp {
    /// The Service: `<namespace>/<name>`, or its DNS name. Waypoints reach its pods through the mesh, without passing its own waypoint.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Timeout of one check, at most 10m. (Istio's default is 10m.)
    #[serde(default = "timeout")]
    #[schemars(regex(pattern = crate::duration::PATTERN))]
    pub timeout: String,
    /// Prefix for the path of the check request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000), regex(pattern = r"^(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?$"))]
    pub path_prefix: String,
    /// Whether a request is allowed if the check fails. A client that can make the provider fail is then allowed too.
    #[serde(default)]
    pub fail_open: bool,
    /// HTTP status that the client gets if the check fails.
    #[serde(default = "status_on_error")]
    #[schemars(regex(pattern = r"^[45][0-9][0-9]$"))]
    pub status_on_error: String,
    /// Request headers that the provider receives, in addition to host and authorization: exact, `prefix*` or `*suffix`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub include_request_headers_in_check: Vec<String>,
    /// Headers that are added to the check request; they replace those of the client.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// How much of the request body the provider receives. If unset, it receives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<RequestBodyInCheck>,
    /// Headers of an allowing response that are set in the request: exact, `prefix*` or `*suffix`. Client headers that match are removed from every checked
    /// request, even if the provider sets none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of a denying response that the client receives, in addition to location and www-authenticate. If empty, it receives all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Headers of an allowing response that are added to the response to the client. If empty, none are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// The part of a body that a provider sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestBodyInCheck {
    /// Most bytes of it; as many are held for each request that is checked.
    #[schemars(range(min = 1, max = 1048576))]
    pub max_request_bytes: i32,
    /// Of a larger body the provider sees the beginning. Else such a request is answered 413.
    #[serde(default)]
    pub allow_partial_message: bool,
    /// The body is given as bytes and not as text (gRPC only).
    #[serde(default)]
    pub pack_as_bytes: bool,
}

fn timeout() -> String {
    "10s".into()
}

fn status_on_error() -> String {
    "403".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_as_istio_writes_it_is_read_and_fails_closed_unless_it_says_otherwise() {
        let providers: Vec<ExtensionProvider> = serde_json::from_value(serde_json::json!([
            {"name": "opa", "envoyExtAuthzGrpc": {"service": "opa.opa.svc.cluster.local", "port": 9191}},
            {"name": "oauth2-proxy", "envoyExtAuthzHttp": {
                "service": "oauth2-proxy.auth.svc.cluster.local", "port": 4180,
                "includeRequestHeadersInCheck": ["authorization", "cookie"],
                "includeAdditionalHeadersInCheck": {"X-Auth-Request-Redirect": "https://example"},
                "includeRequestBodyInCheck": {"maxRequestBytes": 4096, "allowPartialMessage": true},
                "headersToUpstreamOnAllow": ["x-auth-request-*"],
                "headersToDownstreamOnDeny": ["content-type", "set-cookie"]
            }}
        ]))
        .unwrap();
        let grpc = providers[0].envoy_ext_authz_grpc.as_ref().unwrap();
        assert_eq!(
            (grpc.fail_open, grpc.status_on_error.as_str(), grpc.timeout.as_str()),
            (false, "403", "10s")
        );
        let http = providers[1].envoy_ext_authz_http.as_ref().unwrap();
        assert!(!http.fail_open && http.include_request_body_in_check.unwrap().allow_partial_message);
    }
}
