//! Whom AuthorizationPolicies of action CUSTOM may ask. Names and fields are those of Istio's MeshConfig.
//!
//! Invariant: every default stands here; what a provider is not asked for it does not get.

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
    /// What `provider.name` of an AuthorizationPolicy calls it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Asked by gRPC, `envoy.service.auth.v3.Authorization/Check`: OPA and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
    /// Asked by an HTTP request with the method, path and host of the client's: oauth2-proxy and others. 200 admits, 500 and more is no answer, and any other
    /// status is what the client gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
}

/// A provider that is asked by gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthzGrpc {
    /// The Service: `<namespace>/<name>`, or its name in DNS. Waypoints go to its pods through the mesh, not by a waypoint of its own.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// How long one check may take, at most 10m. (Istio's default is 10m.)
    #[serde(default = "timeout")]
    #[schemars(regex(pattern = r"^([0-9]+(d|h|m|s|ms))+$"))]
    pub timeout: String,
    /// Whether requests go on when the provider gives no answer. Then whoever can keep it from answering is admitted.
    #[serde(default)]
    pub fail_open: bool,
    /// What the client gets when the provider gives no answer.
    #[serde(default = "status_on_error")]
    #[schemars(regex(pattern = r"^[45][0-9][0-9]$"))]
    pub status_on_error: String,
    /// The part of the request's body that the provider sees. Left out, it sees none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<RequestBodyInCheck>,
}

/// A provider that is asked by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthzHttp {
    /// The Service: `<namespace>/<name>`, or its name in DNS. Waypoints go to its pods through the mesh, not by a waypoint of its own.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// How long one check may take, at most 10m. (Istio's default is 10m.)
    #[serde(default = "timeout")]
    #[schemars(regex(pattern = r"^([0-9]+(d|h|m|s|ms))+$"))]
    pub timeout: String,
    /// Stands before the path of the request in the check.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000), regex(pattern = r"^(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?$"))]
    pub path_prefix: String,
    /// Whether requests go on when the provider gives no answer. Then whoever can keep it from answering is admitted.
    #[serde(default)]
    pub fail_open: bool,
    /// What the client gets when the provider gives no answer.
    #[serde(default = "status_on_error")]
    #[schemars(regex(pattern = r"^[45][0-9][0-9]$"))]
    pub status_on_error: String,
    /// Headers of the request that the provider sees beside host and authorization: exact, `prefix*` or `*suffix`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub include_request_headers_in_check: Vec<String>,
    /// Headers that the provider sees beside; they take the place of the request's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// The part of the request's body that the provider sees. Left out, it sees none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<RequestBodyInCheck>,
    /// Headers of an admission that are set in the request: exact, `prefix*` or `*suffix`. They are the provider's alone: what the client sent under such a name is
    /// taken from every request that is put to the provider, also when the provider sets nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of a refusal that the client sees, beside location and www-authenticate. Left out, it sees all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Headers of an admission that the client sees in the response. Left out, it sees none.
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
