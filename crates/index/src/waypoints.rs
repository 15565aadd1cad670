//! Waypoints: which services and pods go through which, how they get there, and that nobody goes round them.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::{Action, Clause, GUARD_PREFIX, Match, NamespacedName, Policy, Rule, Scope, StringMatch};

use crate::gateways::Serves;

pub(crate) mod around;
pub(crate) mod binding;
pub(crate) mod stage;
#[cfg(test)]
mod tests;

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
    /// Services, and namespaces of pods, that it knows.
    pub bound: usize,
    /// Routes that are attached to services that ask for it.
    pub routes: usize,
}

/// Name of the policy that closes the endpoints of a service to everybody but its waypoints.
pub(crate) fn deny_name(service: &NamespacedName) -> NamespacedName {
    NamespacedName::new(service.namespace.clone(), format!("{GUARD_PREFIX}{}", service.name))
}

/// Whether a name is kept for policies that close endpoints.
pub(crate) fn is_deny_name(name: &NamespacedName) -> bool {
    name.name.starts_with(GUARD_PREFIX)
}

/// The policy that closes `ports` of the endpoints of a service to everybody but `waypoints`; none when there is nothing
/// to close.
pub(crate) fn deny<'a>(
    service: &NamespacedName,
    waypoints: impl IntoIterator<Item = &'a NamespacedName>,
    ports: Vec<u16>,
    trust_domain: &str,
) -> Option<Policy> {
    let not_principals: Vec<_> = waypoints.into_iter().map(|w| principal(w, trust_domain)).collect();
    if not_principals.is_empty() || ports.is_empty() {
        return None;
    }
    let others = Match { not_principals, destination_ports: ports, ..Match::default() };
    Some(policy(deny_name(service), others))
}

/// The policy that closes every port of pods of a namespace to everybody but `waypoints`, the same for all pods that have
/// the same ones.
pub(crate) fn deny_pods(
    namespace: &Arc<str>,
    waypoints: &BTreeSet<&NamespacedName>,
    trust_domain: &str,
) -> Policy {
    let not_principals = waypoints.iter().map(|waypoint| principal(waypoint, trust_domain)).collect();
    let names: Vec<String> = waypoints.iter().map(|w| format!("{}.{}", w.namespace, w.name)).collect();
    // A Service's name holds no dot, a Gateway's no plus sign.
    let name = format!("{GUARD_PREFIX}pods.{}", names.join("+"));
    let others = Match { not_principals, ..Match::default() };
    policy(NamespacedName::new(namespace.clone(), name), others)
}

fn principal(waypoint: &NamespacedName, trust_domain: &str) -> StringMatch {
    let NamespacedName { namespace, name } = waypoint;
    StringMatch::Exact(format!("{trust_domain}/ns/{namespace}/sa/{name}").into())
}

fn policy(key: NamespacedName, denied: Match) -> Policy {
    Policy {
        key,
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![denied] }] }],
        dry_run: false,
    }
}
