//! The kinds of objects that the index reads.

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

use crate::callers::Caller;

/// An object as it is now.
#[derive(Clone, Debug)]
pub enum Object {
    /// A pod.
    Pod(Box<Pod>),
    /// A service.
    Service(Box<Service>),
    /// Endpoints of services without selector.
    EndpointSlice(Box<EndpointSlice>),
    /// Metadata of a node.
    Node(Box<ObjectMeta>),
    /// Metadata of a namespace.
    Namespace(Box<ObjectMeta>),
    /// Who may do what.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// Whether plaintext is taken.
    PeerAuthentication(Box<PeerAuthentication>),
    /// Whose tokens vouch for requests.
    RequestAuthentication(Box<RequestAuthentication>),
    /// A gateway; one of a waypoint class is a waypoint.
    Gateway(Box<Gateway>),
    /// A class of gateways.
    GatewayClass(Box<GatewayClass>),
    /// Routes of requests.
    HttpRoute(Box<HttpRoute>),
    /// Routes of gRPC calls.
    GrpcRoute(Box<GrpcRoute>),
    /// Routes of connections.
    TcpRoute(Box<TcpRoute>),
    /// Routes of TLS connections.
    TlsRoute(Box<TlsRoute>),
    /// Who may name Services of a namespace.
    ReferenceGrant(Box<ReferenceGrant>),
    /// Faults, limits and balancing.
    TrafficPolicy(Box<TrafficPolicy>),
    /// What makes the API server call Services.
    Caller(Box<Caller>),
}

/// A kind of [`Object`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A pod.
    Pod,
    /// A service.
    Service,
    /// Endpoints of services without selector.
    EndpointSlice,
    /// A node.
    Node,
    /// A namespace.
    Namespace,
    /// Who may do what.
    AuthorizationPolicy,
    /// Whether plaintext is taken.
    PeerAuthentication,
    /// Whose tokens vouch for requests.
    RequestAuthentication,
    /// A gateway; one of a waypoint class is a waypoint.
    Gateway,
    /// A class of gateways.
    GatewayClass,
    /// Routes of requests.
    HttpRoute,
    /// Routes of gRPC calls.
    GrpcRoute,
    /// Routes of connections.
    TcpRoute,
    /// Routes of TLS connections.
    TlsRoute,
    /// Who may name Services of a namespace.
    ReferenceGrant,
    /// Faults, limits and balancing.
    TrafficPolicy,
    /// Admission webhooks that only judge.
    ValidatingWebhook,
    /// Admission webhooks that change objects.
    MutatingWebhook,
    /// Aggregated APIs.
    ApiService,
    /// Resources whose versions a webhook may convert.
    CustomResource,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name; the namespace is empty for nodes, namespaces and classes.
    pub name: NamespacedName,
}

impl Object {
    /// Which object this is.
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

/// A label, or nothing.
pub(crate) fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// An annotation, or nothing.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}
