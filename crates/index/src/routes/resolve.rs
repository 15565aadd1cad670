//! Resolving backend references of routes.
//!
//! Invariant: a Service in another namespace is used only if a ReferenceGrant there permits it, or
//! if it is the parent itself, where the traffic would go without the route too.

use std::collections::BTreeMap;

use ambit_api::{
    conditions::reason,
    gateway::{BackendReference, GROUP, GrantFrom, GrantTo, ReferenceGrantSpec},
};
use ambit_model::{Destination, NamespacedName};

use super::facts::{RouteFacts, RouteKey, target};
use crate::services::ServiceFacts;

/// Everything that references may lead to, and the grants that permit it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World<'a> {
    pub(crate) services: &'a BTreeMap<NamespacedName, ServiceFacts>,
    pub(crate) grants: &'a BTreeMap<NamespacedName, ReferenceGrantSpec>,
}

/// A reference that cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    /// Reason of the condition `ResolvedRefs`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl World<'_> {
    /// The referenced service port.
    pub(crate) fn destination(
        &self,
        route: &RouteFacts,
        reference: &BackendReference,
    ) -> Result<Destination, Unresolved> {
        let unresolved = |reason, message: String| Err(Unresolved { reason, message });
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Service");
        if !(kind == "Service" && (group.is_empty() || group == "core")) {
            return unresolved(
                reason::INVALID_KIND,
                format!("{kind} {} of group {group:?} is not a Service", reference.name),
            );
        }
        let name = target(reference, &route.key.name);
        let is_parent = route.parents.iter().any(|parent| parent.service == name);
        if name.namespace != route.key.name.namespace && !is_parent && !self.grants(&route.key, &name) {
            return unresolved(
                reason::REF_NOT_PERMITTED,
                format!("no ReferenceGrant in namespace {} allows Service {name}", name.namespace),
            );
        }
        let Some(service) = self.services.get(&name) else {
            return unresolved(reason::BACKEND_NOT_FOUND, format!("Service {name} does not exist"));
        };
        let Some(port) = reference.port.and_then(|port| u16::try_from(port).ok()) else {
            return unresolved(reason::BACKEND_NOT_FOUND, format!("Service {name} is named without a port"));
        };
        if !service.ports.iter().any(|known| known.port == port) {
            return unresolved(reason::BACKEND_NOT_FOUND, format!("Service {name} has no TCP port {port}"));
        }
        Ok(Destination { service: service.model.key(), port })
    }

    fn grants(&self, route: &RouteKey, to: &NamespacedName) -> bool {
        let from = |from: &GrantFrom| {
            from.group == GROUP && from.kind == route.kind.as_str() && from.namespace == *route.name.namespace
        };
        let names = |grant: &GrantTo| {
            (grant.group.is_empty() || grant.group == "core")
                && grant.kind == "Service"
                && grant.name.as_deref().is_none_or(|name| name.is_empty() || *name == *to.name)
        };
        self.grants
            .range(NamespacedName::new(to.namespace.clone(), "")..)
            .take_while(|(name, _)| name.namespace == to.namespace)
            .any(|(_, grant)| grant.from.iter().any(from) && grant.to.iter().any(names))
    }
}
