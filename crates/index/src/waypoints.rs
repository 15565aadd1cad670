//! Waypoints: which services go through which, how they get there, and that nobody goes round them.

use std::sync::Arc;

use ambit_model::{Action, Clause, Match, NamespacedName, Policy, Rule, Scope, StringMatch};

use crate::gateways::Serves;

pub(crate) mod binding;
pub(crate) mod stage;
#[cfg(test)]
mod tests;

/// What stands before the name of a service in the name of the policy that closes its endpoints.
const DENY_PREFIX: &str = "ambit-waypoint-";

/// A Gateway of a waypoint class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waypoint {
    /// The Gateway; ServiceAccount, Deployment and Service are named alike.
    pub name: NamespacedName,
    /// Its class.
    pub class: Arc<str>,
    /// Which traffic it is for.
    pub serves: Serves,
    /// A pod of it was ready once.
    pub has_been_ready: bool,
    /// Pods of it that are ready now.
    pub ready_pods: usize,
    /// Services that it knows.
    pub services: usize,
    /// Routes that are attached to services that ask for it.
    pub routes: usize,
}

/// Name of the policy that closes the endpoints of a service to everybody but its waypoints.
pub(crate) fn deny_name(service: &NamespacedName) -> NamespacedName {
    NamespacedName::new(service.namespace.clone(), format!("{DENY_PREFIX}{}", service.name))
}

/// Whether a name is kept for policies that close endpoints.
pub(crate) fn is_deny_name(name: &NamespacedName) -> bool {
    name.name.starts_with(DENY_PREFIX)
}

/// The policy that closes `ports` to everybody but `waypoints`; none when there is nothing to close.
pub(crate) fn deny<'a>(
    service: &NamespacedName,
    waypoints: impl IntoIterator<Item = &'a NamespacedName>,
    ports: Vec<u16>,
    trust_domain: &str,
) -> Option<Policy> {
    let principal = |waypoint: &NamespacedName| {
        let NamespacedName { namespace, name } = waypoint;
        StringMatch::Exact(format!("{trust_domain}/ns/{namespace}/sa/{name}").into())
    };
    let not_principals: Vec<StringMatch> = waypoints.into_iter().map(principal).collect();
    if not_principals.is_empty() || ports.is_empty() {
        return None;
    }
    let others = Match { not_principals, destination_ports: ports, ..Match::default() };
    Some(Policy {
        key: deny_name(service),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![others] }] }],
        dry_run: false,
    })
}
