//! Translation of PeerAuthentication to DENY policies.
//!
//! Invariant: on every port of a workload, plaintext is denied exactly where `effective_mode` of
//! [`ambit_model::peer_authentication`] returns STRICT; a tunnel is never denied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ambit_api::{
    conditions::{ZTUNNEL_ACCEPTED, reason},
    policy::{MutualTls, MutualTlsMode},
};
use ambit_model::{
    Action, Clause, Match, Mode, NamespacedName, Policy, Rule, Scope, StringMatch,
    peer_authentication::effective_mode,
};

use super::{Holds, Judgement, PolicyFacts, fields::selector, unknown};
use crate::object::name_of;

/// A PeerAuthentication.
pub(crate) type PeerFacts = PolicyFacts<Modes>;

/// Name of the policy that denies all plaintext; Kubernetes names cannot contain underscores, so it
/// cannot clash.
const STRICT: &str = "istio_converted_static_strict";
/// Name prefix of the policy derived from one PeerAuthentication with port exceptions.
const CONVERTED: &str = "converted_peer_authentication_";

/// The modes of one PeerAuthentication; `None` is UNSET.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// Mode for all ports.
    pub all: Option<Mode>,
    /// Modes of single ports.
    pub ports: BTreeMap<u16, Option<Mode>>,
}

impl Modes {
    /// Ports that are explicitly permissive.
    pub(crate) fn open_ports(&self) -> BTreeSet<u16> {
        let open = self.ports.iter().filter(|(_, mode)| **mode == Some(Mode::Permissive));
        open.map(|(port, _)| *port).collect()
    }
}

/// The policy that workloads reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Derived {
    /// None: plaintext is accepted.
    Nothing,
    /// The shared policy [`strict`].
    Strict,
    /// A policy with these rules.
    Own(Vec<Rule>),
}

/// Parses an object.
pub(crate) fn read(object: &ambit_api::PeerAuthentication) -> PeerFacts {
    let selector = selector(object.spec.selector.as_ref());
    let mut ports = BTreeMap::new();
    let mut invalid = Vec::new();
    for (port, mtls) in &object.spec.port_level_mtls {
        match port.parse::<u16>().ok().filter(|port| *port > 0) {
            Some(number) => {
                ports.insert(number, mode(mtls));
            }
            None => invalid.push(format!("spec.portLevelMtls {port:?} is not a port (1 to 65535)")),
        }
    }
    invalid.extend(unknown::wildcards(object.spec.selector.as_ref()));
    let unknown = unknown::of_peer_authentication(&object.spec);
    let has_ports = !object.spec.port_level_mtls.is_empty();
    let is_understood = unknown.is_empty();
    let judgement = match is_understood {
        true => judge(&invalid, has_ports && selector.is_none()),
        false => refused(&unknown),
    };
    let said = Modes { all: object.spec.mtls.as_ref().and_then(mode), ports };
    PolicyFacts {
        name: name_of(&object.metadata),
        created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        selector,
        judgements: vec![judgement],
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        generation: object.metadata.generation,
        conditions: object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default(),
        content: if is_understood { said } else { Modes { all: Some(Mode::Strict), ports: BTreeMap::new() } },
    }
}

/// For an object with unknown fields: its meaning is unknown, so plaintext is denied.
fn refused(unknown: &[String]) -> Judgement {
    let message = format!("{}: the policy is read as STRICT", unknown.join(", "));
    Judgement { condition: ZTUNNEL_ACCEPTED, holds: Holds::False, reason: reason::INVALID, message }
}

fn judge(invalid: &[String], ports_without_selector: bool) -> Judgement {
    let (holds, reason, message) = match (invalid, ports_without_selector) {
        ([], false) => (Holds::True, reason::ACCEPTED, "attached to ztunnel".into()),
        ([], true) => (
            Holds::False,
            reason::UNSUPPORTED_VALUE,
            "spec.portLevelMtls requires a selector: only spec.mtls is applied".into(),
        ),
        (fields, _) => (
            Holds::False,
            reason::INVALID,
            format!("{}: ignored; everything else is applied", fields.join(", ")),
        ),
    };
    Judgement { condition: ZTUNNEL_ACCEPTED, holds, reason, message }
}

/// DISABLE counts as PERMISSIVE, because an incoming tunnel is never refused.
fn mode(mtls: &MutualTls) -> Option<Mode> {
    match mtls.mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable | MutualTlsMode::Permissive => Some(Mode::Permissive),
        MutualTlsMode::Strict => Some(Mode::Strict),
    }
}

/// Derives the policy of the workloads that one PeerAuthentication (or none) selects.
pub fn derive(mesh: Option<Mode>, namespace: Option<Mode>, workload: &Modes) -> Derived {
    let base = effective_mode(mesh, namespace, workload.all, None);
    let other: Vec<u16> = workload
        .ports
        .iter()
        .filter(|(_, mode)| effective_mode(mesh, namespace, workload.all, **mode) != base)
        .map(|(port, _)| *port)
        .collect();
    match (base, other.as_slice()) {
        (Mode::Permissive, []) => Derived::Nothing,
        (Mode::Strict, []) => Derived::Strict,
        (Mode::Permissive, strict) => {
            let on_ports = Match { destination_ports: strict.to_vec(), ..Match::default() };
            Derived::Own(vec![Rule { clauses: vec![one(plaintext()), one(on_ports)] }])
        }
        (Mode::Strict, permissive) => {
            let elsewhere = Match { not_destination_ports: permissive.to_vec(), ..Match::default() };
            Derived::Own(vec![Rule { clauses: vec![one(plaintext()), one(elsewhere)] }])
        }
    }
}

/// The policy that denies all plaintext.
pub fn strict(system_namespace: &Arc<str>) -> Policy {
    deny(
        NamespacedName::new(system_namespace.clone(), STRICT),
        vec![Rule { clauses: vec![one(plaintext())] }],
    )
}

/// The policy derived from one PeerAuthentication with port exceptions.
pub(crate) fn own(source: &NamespacedName, rules: Vec<Rule>) -> Policy {
    deny(own_name(source), rules)
}

/// Name of the policy [`own`].
pub(crate) fn own_name(source: &NamespacedName) -> NamespacedName {
    NamespacedName::new(source.namespace.clone(), format!("{CONVERTED}{}", source.name))
}

/// Name of the policy [`strict`].
pub(crate) fn strict_name(system_namespace: &Arc<str>) -> NamespacedName {
    NamespacedName::new(system_namespace.clone(), STRICT)
}

fn deny(key: NamespacedName, rules: Vec<Rule>) -> Policy {
    Policy { key, scope: Scope::WorkloadSelector, action: Action::Deny, rules, dry_run: false }
}

/// Matches connections without identity.
fn plaintext() -> Match {
    Match { not_principals: vec![StringMatch::Presence], ..Match::default() }
}

fn one(found: Match) -> Clause {
    Clause { matches: vec![found] }
}

#[cfg(test)]
mod tests;
