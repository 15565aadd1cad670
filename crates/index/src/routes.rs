//! Routes that are attached to Services, each translated once from its own object.
//!
//! Invariant: a rule that cannot be carried out as written stays in the table and is answered 500, and the route's
//! status names it. It never routes some other way, and its neighbours do not notice.

use std::{fmt, sync::Arc};

use ambit_api::gateway::{BackendReference, GROUP, ParentReference, RouteParentStatus};
use ambit_model::{
    NamespacedName,
    bound::{Filter, Fraction, HttpMatch, RequestTimeouts, Retry, SessionPersistence},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::name_of;

pub(crate) mod attach;
mod filters;
pub(crate) mod grpc;
pub(crate) mod http;
mod precedence;
pub(crate) mod resolve;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod table;

pub(crate) use precedence::Rank;
pub use status::{RouteParent, RoutePatch};

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
    /// The word, as the Gateway API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tcp => "TCPRoute",
            Self::Tls => "TLSRoute",
        }
    }

    /// Whether it routes requests; others route connections.
    pub(crate) fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Grpc => true,
            Self::Tcp | Self::Tls => false,
        }
    }
}

/// Which route.
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

/// What the model needs of a route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteFacts {
    pub(crate) key: RouteKey,
    /// Seconds since the epoch; the oldest comes first.
    pub(crate) created: i64,
    pub(crate) generation: Option<i64>,
    pub(crate) resource_version: String,
    /// Parents that are Services.
    pub(crate) parents: Vec<Parent>,
    /// Server names of a TLSRoute, in lower case; none: every one.
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) rules: Vec<RuleFacts>,
    /// What its status says now.
    pub(crate) status: Vec<RouteParentStatus>,
}

/// A Service that a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) reference: ParentReference,
    pub(crate) service: NamespacedName,
}

/// One rule, as far as its object alone tells.
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
    /// Why it is answered 500.
    pub(crate) problem: Option<Arc<str>>,
}

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FilterFacts {
    /// Complete.
    Ready(Filter),
    /// A mirror whose destination is to be found.
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
    fn new(
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

    fn rule_name(&self, name: Option<&str>, at: usize) -> Arc<str> {
        let NamespacedName { namespace, name: route } = &self.key.name;
        let kind = self.key.kind.as_str();
        match name {
            Some(name) => format!("{kind}/{namespace}/{route}/{name}").into(),
            None => format!("{kind}/{namespace}/{route}/{at}").into(),
        }
    }

    /// Services that its rules lead to, mirrors too.
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
        of_rules.map(|reference| resolve::target(reference, &self.key.name))
    }

    /// Whether it speaks for clients of its own namespace only.
    pub(crate) fn is_consumer_of(&self, service: &NamespacedName) -> bool {
        self.key.name.namespace != service.namespace
    }

    /// The order in which routes that say the same are heard.
    pub(crate) fn seniority(&self) -> (i64, &NamespacedName, RouteKind) {
        (self.created, &self.key.name, self.key.kind)
    }
}

impl FilterFacts {
    fn mirror(&self) -> Option<&BackendReference> {
        match self {
            Self::Ready(_) => None,
            Self::Mirror { to, .. } => Some(to),
        }
    }
}

impl Parent {
    /// Reads a reference; parents of other kinds are others' business.
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
