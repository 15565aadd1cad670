//! `TCPRoute` and `TLSRoute`: connections by weight. Both are v1 in the standard and the experimental channel of Gateway API 1.6.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::{BackendReference, ParentReference};

/// Routes TCP connections.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "TCPRoute",
    root = "TcpRoute",
    plural = "tcproutes",
    namespaced,
    status = "super::RouteStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRouteSpec {
    /// Services or Gateways it attaches to.
    pub parent_refs: Vec<ParentReference>,
    /// Rules; only the first is used.
    pub rules: Vec<StreamRouteRule>,
}

/// Routes TLS connections without terminating them.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "TLSRoute",
    root = "TlsRoute",
    plural = "tlsroutes",
    namespaced,
    status = "super::RouteStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRouteSpec {
    /// Services or Gateways it attaches to.
    pub parent_refs: Vec<ParentReference>,
    /// Server names (SNI) it applies to, where `*.` matches all subdomains; empty matches every name.
    pub hostnames: Vec<String>,
    /// Rules; only the first is used.
    pub rules: Vec<StreamRouteRule>,
}

/// One rule of a TCPRoute or TLSRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamRouteRule {
    /// Name of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Backends, chosen by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendReference>,
}
