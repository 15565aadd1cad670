//! TCPRoute and TLSRoute: connections by weight. Both are served as v1 by either channel of Gateway API 1.6.

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
    /// What it attaches to.
    pub parent_refs: Vec<ParentReference>,
    /// Rules, of which the first counts.
    pub rules: Vec<StreamRouteRule>,
}

/// Routes TLS connections without ending them.
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
    /// What it attaches to.
    pub parent_refs: Vec<ParentReference>,
    /// Server names that it takes, `*.` for all below one; none: every one.
    pub hostnames: Vec<String>,
    /// Rules, of which the first counts.
    pub rules: Vec<StreamRouteRule>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamRouteRule {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where connections go, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendReference>,
}
