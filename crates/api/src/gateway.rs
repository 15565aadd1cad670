//! `gateway.networking.k8s.io` kinds that the mesh honours: the fields it reads, as the Gateway API defines them.
//!
//! Invariant: whatever the API server stored can be read. Fields that are not known here are passed over, and a
//! closed set of words is kept as text, so that an unknown word ends in a condition and not in a broken watch.
//! The definitions themselves are not ours: a cluster brings them.

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
pub use topology::trusted_proxies;

/// API group of these kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// What a route attaches to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    /// API group; none is [`GROUP`], empty is the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind; none is `Gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace; none is the route's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Section of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Port of the parent; none is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// Where a rule leads, or where copies go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendReference {
    /// API group; none is the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind; none is `Service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; none is the route's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Port; a Service needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Share of the sum of all; none is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
}

/// Status of a route: one entry per parent and controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteStatus {
    /// What each controller makes of each parent.
    pub parents: Vec<RouteParentStatus>,
}

/// What one controller makes of one parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// The parent, as the route names it.
    pub parent_ref: ParentReference,
    /// Who says so.
    pub controller_name: String,
    /// What it says.
    pub conditions: Vec<PolicyCondition>,
}

#[cfg(test)]
mod tests;
