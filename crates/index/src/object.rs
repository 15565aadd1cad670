//! The kinds of objects that the index reads.

use ambit_api::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use ambit_model::NamespacedName;
use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

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
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name; the namespace is empty for nodes and namespaces.
    pub name: NamespacedName,
}

impl Object {
    /// Which object this is.
    pub fn key(&self) -> Key {
        let (kind, metadata) = match self {
            Self::Pod(pod) => (Kind::Pod, &pod.metadata),
            Self::Service(service) => (Kind::Service, &service.metadata),
            Self::EndpointSlice(slice) => (Kind::EndpointSlice, &slice.metadata),
            Self::Node(metadata) => (Kind::Node, metadata.as_ref()),
            Self::Namespace(metadata) => (Kind::Namespace, metadata.as_ref()),
            Self::AuthorizationPolicy(policy) => (Kind::AuthorizationPolicy, &policy.metadata),
            Self::PeerAuthentication(policy) => (Kind::PeerAuthentication, &policy.metadata),
            Self::RequestAuthentication(policy) => (Kind::RequestAuthentication, &policy.metadata),
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
