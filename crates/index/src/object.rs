//! The kinds of objects that the index processes.

use ambit_api::{
    AuthorizationPolicy, PeerAuthentication, RequestAuthentication, TrafficPolicy,
    gateway::{Gateway, GatewayClass, GrpcRoute, HttpRoute, ReferenceGrant, TcpRoute, TlsRoute},
};
use ambit_model::NamespacedName;
use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    callers::Caller,
    key::{Key, Kind},
};

/// A Kubernetes object.
#[derive(Clone, Debug)]
pub enum Object {
    /// A pod.
    Pod(Box<Pod>),
    /// A service.
    Service(Box<Service>),
    /// EndpointSlice of a service without selector.
    EndpointSlice(Box<EndpointSlice>),
    /// Metadata of a node.
    Node(Box<ObjectMeta>),
    /// Metadata of a namespace.
    Namespace(Box<ObjectMeta>),
    /// Authorization rules.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// Whether ports accept plaintext.
    PeerAuthentication(Box<PeerAuthentication>),
    /// Accepted token issuers.
    RequestAuthentication(Box<RequestAuthentication>),
    /// A Gateway; one of a waypoint class is a waypoint.
    Gateway(Box<Gateway>),
    /// A class of Gateways.
    GatewayClass(Box<GatewayClass>),
    /// HTTP routes.
    HttpRoute(Box<HttpRoute>),
    /// gRPC routes.
    GrpcRoute(Box<GrpcRoute>),
    /// TCP routes.
    TcpRoute(Box<TcpRoute>),
    /// TLS routes.
    TlsRoute(Box<TlsRoute>),
    /// Permission to reference Services of a namespace.
    ReferenceGrant(Box<ReferenceGrant>),
    /// Fault injection, limits and load balancing.
    TrafficPolicy(Box<TrafficPolicy>),
    /// An object that makes the API server call Services.
    Caller(Box<Caller>),
}

impl Object {
    /// The key of this object.
    pub fn key(&self) -> Key {
        let (kind, metadata) = match self {
            Self::Caller(caller) => return caller.key.clone(),
            Self::Pod(pod) => (Kind::Pod, &pod.metadata),
            Self::Service(service) => (Kind::Service, &service.metadata),
            Self::EndpointSlice(slice) => (Kind::EndpointSlice, &slice.metadata),
            Self::Node(metadata) => (Kind::Node, metadata.as_ref()),
            Self::Namespace(metadata) => (Kind::Namespace, metadata.as_ref()),
            Self::AuthorizationPolicy(policy) => (Kind::AuthorizationPolicy, &policy.metadata),
            Self::PeerAuthentication(policy) => (Kind::PeerAuthentication, &policy.metadata),
            Self::RequestAuthentication(policy) => (Kind::RequestAuthentication, &policy.metadata),
            Self::Gateway(object) => (Kind::Gateway, &object.metadata),
            Self::GatewayClass(object) => (Kind::GatewayClass, &object.metadata),
            Self::HttpRoute(object) => (Kind::HttpRoute, &object.metadata),
            Self::GrpcRoute(object) => (Kind::GrpcRoute, &object.metadata),
            Self::TcpRoute(object) => (Kind::TcpRoute, &object.metadata),
            Self::TlsRoute(object) => (Kind::TlsRoute, &object.metadata),
            Self::ReferenceGrant(object) => (Kind::ReferenceGrant, &object.metadata),
            Self::TrafficPolicy(object) => (Kind::TrafficPolicy, &object.metadata),
        };
        Key { kind, name: name_of(metadata) }
    }
}

/// `namespace/name` of an object.
pub fn name_of(metadata: &ObjectMeta) -> NamespacedName {
    NamespacedName::new(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// The value of a label.
pub(crate) fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}
