//! Identifies an object by kind and name.

use ambit_model::NamespacedName;

/// A kind of [`Object`](crate::Object).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A pod.
    Pod,
    /// A service.
    Service,
    /// EndpointSlice of a service without selector.
    EndpointSlice,
    /// A node.
    Node,
    /// A namespace.
    Namespace,
    /// Authorization rules.
    AuthorizationPolicy,
    /// Whether ports accept plaintext.
    PeerAuthentication,
    /// Accepted token issuers.
    RequestAuthentication,
    /// A Gateway; one of a waypoint class is a waypoint.
    Gateway,
    /// A class of Gateways.
    GatewayClass,
    /// HTTP routes.
    HttpRoute,
    /// gRPC routes.
    GrpcRoute,
    /// TCP routes.
    TcpRoute,
    /// TLS routes.
    TlsRoute,
    /// Permission to reference Services of a namespace.
    ReferenceGrant,
    /// Fault injection, limits and load balancing.
    TrafficPolicy,
    /// Validating admission webhooks.
    ValidatingWebhook,
    /// Mutating admission webhooks.
    MutatingWebhook,
    /// Aggregated APIs.
    ApiService,
    /// Custom resource definitions, whose versions a webhook may convert.
    CustomResource,
}

/// Identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name; the namespace is empty for cluster-scoped objects.
    pub name: NamespacedName,
}
