//! What the model needs of a route, as far as its own object tells.

use std::{fmt, sync::Arc};

use ambit_api::gateway::{BackendReference, GROUP, ParentReference, RouteParentStatus};
use ambit_model::{
    NamespacedName,
    bound::{Filter, Fraction, HttpMatch, RequestTimeouts, Retry, SessionPersistence},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::name_of;

use super::Rank;

/// A kind of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
    /// TCPRoute.
    Tcp,
    /// TLSRoute.
    Tls,
}

impl RouteKind {
    /// The kind in the Gateway API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tcp => "TCPRoute",
            Self::Tls => "TLSRoute",
        }
    }

    /// Whether it routes requests, in contrast to connections.
    pub(crate) fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Grpc => true,
            Self::Tcp | Self::Tls => false,
        }
    }
}

/// Identifies a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Its kind.
    pub kind: RouteKind,
    /// Its name.
    pub name: NamespacedName,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// The facts about a route that the model needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteFacts {
    pub(crate) key: RouteKey,
    /// Creation time in seconds since the epoch; the oldest comes first.
    pub(crate) created: i64,
    pub(crate) generation: Option<i64>,
    pub(crate) resource_version: String,
    /// Parents that are Services.
    pub(crate) parents: Vec<Parent>,
    /// Server names of a TLSRoute, in lower case; empty matches all.
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) rules: Vec<RuleFacts>,
    /// The current status.
    pub(crate) status: Vec<RouteParentStatus>,
}

/// A Service that a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) reference: ParentReference,
    pub(crate) service: NamespacedName,
}

/// One rule, as far as it follows from its object alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RuleFacts {
    /// `<kind>/<namespace>/<name>/<rule name or index>`
    pub(crate) name: Arc<str>,
    pub(crate) matches: Vec<(Rank, HttpMatch)>,
    pub(crate) filters: Vec<FilterFacts>,
    pub(crate) backends: Vec<BackendFacts>,
    pub(crate) timeouts: RequestTimeouts,
    pub(crate) retry: Option<Retry>,
    pub(crate) session: Option<SessionPersistence>,
    /// Why the rule's requests get 500.
    pub(crate) problem: Option<Arc<str>>,
}

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FilterFacts {
    /// Complete.
    Ready(Filter),
    /// A mirror whose destination must be resolved.
    Mirror { to: BackendReference, fraction: Option<Fraction> },
}

/// One backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BackendFacts {
    pub(crate) reference: BackendReference,
    pub(crate) weight: u32,
    pub(crate) filters: Vec<FilterFacts>,
}

impl RouteFacts {
    pub(super) fn new(
        kind: RouteKind,
        metadata: &ObjectMeta,
        parents: &[ParentReference],
        status: Option<&ambit_api::gateway::RouteStatus>,
    ) -> Self {
        let name = name_of(metadata);
        Self {
            created: metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
            generation: metadata.generation,
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            parents: parents.iter().filter_map(|reference| Parent::read(reference, &name)).collect(),
            names: Vec::new(),
            rules: Vec::new(),
            status: status.map(|status| status.parents.clone()).unwrap_or_default(),
            key: RouteKey { kind, name },
        }
    }

    pub(super) fn rule_name(&self, name: Option<&str>, at: usize) -> Arc<str> {
        let NamespacedName { namespace, name: route } = &self.key.name;
        let kind = self.key.kind.as_str();
        match name {
            Some(name) => format!("{kind}/{namespace}/{route}/{name}").into(),
            None => format!("{kind}/{namespace}/{route}/{at}").into(),
        }
    }

    /// Services that its rules reference, including mirrors.
    pub(crate) fn backends(&self) -> impl Iterator<Item = NamespacedName> + '_ {
        let of_rules = self.rules.iter().flat_map(|rule| {
            let own = rule.filters.iter().filter_map(FilterFacts::mirror);
            let of_backends = rule.backends.iter().flat_map(|backend| {
                backend
                    .filters
                    .iter()
                    .filter_map(FilterFacts::mirror)
                    .chain(std::iter::once(&backend.reference))
            });
            own.chain(of_backends)
        });
        of_rules.map(|reference| target(reference, &self.key.name))
    }

    /// Whether it applies only to clients in its own namespace (a consumer route).
    pub(crate) fn is_consumer_of(&self, service: &NamespacedName) -> bool {
        self.key.name.namespace != service.namespace
    }

    /// Precedence of equal routes: the oldest first.
    pub(crate) fn seniority(&self) -> (i64, &NamespacedName, RouteKind) {
        (self.created, &self.key.name, self.key.kind)
    }
}

impl FilterFacts {
    pub(super) fn mirror(&self) -> Option<&BackendReference> {
        match self {
            Self::Ready(_) => None,
            Self::Mirror { to, .. } => Some(to),
        }
    }
}

impl Parent {
    /// Parses a reference; `None` for parents of other kinds.
    fn read(reference: &ParentReference, route: &NamespacedName) -> Option<Self> {
        let group = reference.group.as_deref().unwrap_or(GROUP);
        let is_service =
            reference.kind.as_deref() == Some("Service") && (group.is_empty() || group == "core");
        let namespace = reference.namespace.as_deref().map_or_else(|| route.namespace.clone(), Arc::from);
        is_service.then(|| Self {
            service: NamespacedName::new(namespace, reference.name.as_str()),
            reference: reference.clone(),
        })
    }
}

/// The referenced object, whether or not it exists.
pub(crate) fn target(reference: &BackendReference, route: &NamespacedName) -> NamespacedName {
    let namespace = reference.namespace.as_deref().map_or_else(|| route.namespace.clone(), Arc::from);
    NamespacedName::new(namespace, reference.name.as_str())
}
