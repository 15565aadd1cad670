//! `gateway.networking.k8s.io` kinds that the mesh honours: the fields it reads, as the Gateway API defines them.
//!
//! Invariant: every object that the API server stores can be read. Unknown fields are ignored, and enumerations are
//! kept as text, so that an unknown value leads to a condition and not to a broken watch. The CRDs themselves are
//! not installed by Ambit; the cluster brings them.

use serde::{Deserialize, Serialize};

use crate::policy::PolicyCondition;

mod gateways;
mod grpc_route;
mod http_filter;
mod http_route;
mod reference_grant;
mod stream_route;
mod topology;

pub use gateways::{
    AllowedRoutes, Gateway, GatewayAddress, GatewayClass, GatewayClassSpec, GatewayClassStatus,
    GatewayInfrastructure, GatewaySpec, GatewayStatus, LabelSelector, LabelSelectorRequirement, Listener,
    ListenerStatus, ParametersReference, RouteKind, RouteNamespaces,
};
pub use grpc_route::{
    GrpcBackendReference, GrpcMatch, GrpcMethodMatch, GrpcRoute, GrpcRouteRule, GrpcRouteSpec,
};
pub use http_filter::{
    Fraction, Header, HttpCors, HttpFilter, HttpHeaderFilter, HttpPathModifier, HttpRequestMirror,
    HttpRequestRedirect, HttpUrlRewrite,
};
pub use http_route::{
    CookieConfig, HttpBackendReference, HttpMatch, HttpPathMatch, HttpRetry, HttpRoute, HttpRouteRule,
    HttpRouteSpec, HttpTimeouts, HttpValueMatch, SessionPersistence,
};
pub use reference_grant::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use stream_route::{StreamRouteRule, TcpRoute, TcpRouteSpec, TlsRoute, TlsRouteSpec};
pub use topology::{topology_problem, trusted_proxies};

/// API group of these kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// The object that a route attaches to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    /// API group; defaults to [`GROUP`]. Empty is the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind; defaults to `Gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace; defaults to the route's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the parent.
    pub name: String,
    /// Section of the parent, for example a listener's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Port of the parent; defaults to all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// Where a rule sends requests, or their copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendReference {
    /// API group; defaults to the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind; defaults to `Service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the backend.
    pub name: String,
    /// Namespace; defaults to the route's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Port; required for a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Weight relative to the sum of all weights; defaults to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
}

/// Status of a route: one entry per parent and controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteStatus {
    /// One entry for each parent and controller.
    pub parents: Vec<RouteParentStatus>,
}

/// Status of a route for one parent, as one controller reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// The parent, as the route names it.
    pub parent_ref: ParentReference,
    /// The controller that reports it.
    pub controller_name: String,
    /// Conditions that it reports.
    pub conditions: Vec<PolicyCondition>,
}

#[cfg(test)]
mod tests;
