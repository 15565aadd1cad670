//! Waypoints: which services and pods use which one, the steps to get there, and closing endpoints
//! to everyone else.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::{Action, Clause, GUARD_PREFIX, Match, NamespacedName, Policy, Rule, Scope, StringMatch};

use crate::gateways::Serves;

pub(crate) mod around;
pub(crate) mod binding;
pub(crate) mod stage;
#[cfg(test)]
mod tests;

/// A waypoint of this mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waypoint {
    /// Name of the Gateway; ServiceAccount, Deployment and Service have the same name.
    pub name: NamespacedName,
    /// Name of its GatewayClass.
    pub class: Arc<str>,
    /// Which traffic it serves.
    pub serves: Serves,
    /// One of its pods has been ready.
    pub has_been_ready: bool,
    /// Number of pods that are ready.
    pub ready_pods: usize,
    /// Number of services, and namespaces of pods, that are published to it.
    pub bound: usize,
    /// Number of routes attached to services that request it.
    pub routes: usize,
}

/// Ports at which the owner of a pod lets plaintext bypass its waypoint
/// (`docs/decisions/0029-a-port-left-open-past-a-waypoint.md`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Opening {
    /// The PeerAuthentication that opens them.
    pub(crate) peer: NamespacedName,
    /// Workload ports, at least one.
    pub(crate) ports: BTreeSet<u16>,
}

/// Name of the policy that closes the endpoints of a service to all but its waypoints; pods with
/// open ports use one of their own.
pub(crate) fn deny_name(service: &NamespacedName, opening: Option<&Opening>) -> NamespacedName {
    guard_name(&service.namespace, &service.name, opening)
}

/// An at sign cannot occur in Kubernetes names.
fn guard_name(namespace: &Arc<str>, closed: &str, opening: Option<&Opening>) -> NamespacedName {
    let opening = opening.map(|opening| format!("@{}", opening.peer.name)).unwrap_or_default();
    NamespacedName::new(namespace.clone(), format!("{GUARD_PREFIX}{closed}{opening}"))
}

/// Whether a name is reserved for closing policies.
pub(crate) fn is_deny_name(name: &NamespacedName) -> bool {
    name.name.starts_with(GUARD_PREFIX)
}

/// The policy that closes `ports` of a service's endpoints to all but `waypoints`; `None` when
/// there is nothing to close.
pub(crate) fn deny(
    service: &NamespacedName,
    waypoints: &BTreeSet<&NamespacedName>,
    ports: &BTreeSet<u16>,
    opening: Option<&Opening>,
    trust_domain: &str,
) -> Option<Policy> {
    let not_principals: Vec<_> = waypoints.iter().map(|w| principal(w, trust_domain)).collect();
    if not_principals.is_empty() || ports.is_empty() {
        return None;
    }
    let (open, closed): (Vec<u16>, Vec<u16>) =
        ports.iter().partition(|port| opening.is_some_and(|opening| opening.ports.contains(port)));
    let on = |destination_ports| Match {
        not_principals: not_principals.clone(),
        destination_ports,
        ..Match::default()
    };
    // A match without ports would apply to all of them.
    let closed = (!closed.is_empty()).then(|| on(closed));
    let open = (!open.is_empty()).then(|| identified(on(open)));
    Some(policy(deny_name(service, opening), closed.into_iter().chain(open).collect()))
}

/// The policy that closes all ports of pods in a namespace to all but `waypoints`; shared by pods
/// with the same waypoints.
pub(crate) fn deny_pods(
    namespace: &Arc<str>,
    waypoints: &BTreeSet<&NamespacedName>,
    opening: Option<&Opening>,
    trust_domain: &str,
) -> Policy {
    let not_principals: Vec<_> = waypoints.iter().map(|waypoint| principal(waypoint, trust_domain)).collect();
    let names: Vec<String> = waypoints.iter().map(|w| format!("{}.{}", w.namespace, w.name)).collect();
    // A Service's name cannot contain a dot, nor a Gateway's a plus sign.
    let key = guard_name(namespace, &format!("pods.{}", names.join("+")), opening);
    let ports: Vec<u16> = opening.iter().flat_map(|opening| &opening.ports).copied().collect();
    let others = Match { not_principals, ..Match::default() };
    let open =
        (!ports.is_empty()).then(|| identified(Match { destination_ports: ports.clone(), ..others.clone() }));
    let closed = Match { not_destination_ports: ports, ..others };
    policy(key, [closed].into_iter().chain(open).collect())
}

/// Restricts the match to callers with an identity, so that plaintext is let through.
fn identified(others: Match) -> Match {
    Match { principals: vec![StringMatch::Presence], ..others }
}

fn principal(waypoint: &NamespacedName, trust_domain: &str) -> StringMatch {
    let NamespacedName { namespace, name } = waypoint;
    StringMatch::Exact(format!("{trust_domain}/ns/{namespace}/sa/{name}").into())
}

fn policy(key: NamespacedName, denied: Vec<Match>) -> Policy {
    Policy {
        key,
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: denied }] }],
        dry_run: false,
    }
}
