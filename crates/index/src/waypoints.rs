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

/// Ports at which the owner of a pod lets plaintext get past its waypoint (`docs/decisions/0029-a-port-left-open-past-a-waypoint.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The PeerAuthentication that says so.
    pub(crate) peer: NamespacedName,
    /// Workload ports, at least one.
    pub(crate) ports: BTreeSet<u16>,
}

/// Name of the policy that closes the endpoints of a service to everybody but its waypoints; pods with an opening have
/// one of their own.
pub(crate) fn deny_name(service: &NamespacedName, opening: Option<&Opening>) -> NamespacedName {
    guard_name(&service.namespace, &service.name, opening)
}

/// No Kubernetes name holds an at sign.
fn guard_name(namespace: &Arc<str>, closed: &str, opening: Option<&Opening>) -> NamespacedName {
    let opening = opening.map(|opening| format!("@{}", opening.peer.name)).unwrap_or_default();
    NamespacedName::new(namespace.clone(), format!("{GUARD_PREFIX}{closed}{opening}"))
}

/// Whether a name is kept for policies that close endpoints.
pub(crate) fn is_deny_name(name: &NamespacedName) -> bool {
    name.name.starts_with(GUARD_PREFIX)
}

/// The policy that closes `ports` of the endpoints of a service to everybody but `waypoints`; none when there is nothing
/// to close.
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
    // A match without ports would be about all of them.
    let closed = (!closed.is_empty()).then(|| on(closed));
    let open = (!open.is_empty()).then(|| identified(on(open)));
    Some(policy(deny_name(service, opening), closed.into_iter().chain(open).collect()))
}

/// The policy that closes every port of pods of a namespace to everybody but `waypoints`, the same for all pods that have
/// the same ones.
pub(crate) fn deny_pods(
    namespace: &Arc<str>,
    waypoints: &BTreeSet<&NamespacedName>,
    opening: Option<&Opening>,
    trust_domain: &str,
) -> Policy {
    let not_principals: Vec<_> = waypoints.iter().map(|waypoint| principal(waypoint, trust_domain)).collect();
    let names: Vec<String> = waypoints.iter().map(|w| format!("{}.{}", w.namespace, w.name)).collect();
    // A Service's name holds no dot, a Gateway's no plus sign.
    let key = guard_name(namespace, &format!("pods.{}", names.join("+")), opening);
    let ports: Vec<u16> = opening.iter().flat_map(|opening| &opening.ports).copied().collect();
    let others = Match { not_principals, ..Match::default() };
    let open =
        (!ports.is_empty()).then(|| identified(Match { destination_ports: ports.clone(), ..others.clone() }));
    let closed = Match { not_destination_ports: ports, ..others };
    policy(key, [closed].into_iter().chain(open).collect())
}

/// The same for callers who have an identity: those without any are let through.
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
