//! Translation of AuthorizationPolicy: to what node proxies can enforce or, with target references,
//! to the full policy for waypoints.
//!
//! Invariant: what is enforced is never weaker than the policy as written. At a node, an ALLOW rule
//! with anything that cannot be enforced is dropped, and a DENY rule is enforced without the parts
//! that cannot be. The only exception is the part of a DENY rule that has only L7 conditions, which
//! is reported as False. A waypoint gets a policy completely or not at all; if not, it refuses
//! everything, as nodes do for a policy with unknown fields. Policies without effect (AUDIT, dry
//! run) never refuse anything.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ambit_api::{
    conditions::{ZTUNNEL_ACCEPTED, reason},
    labels,
    policy::{self as api, AuthorizationPolicySpec},
};
use ambit_model::{Action, Clause, Match, NamespacedName, Policy, Rule, Scope, StringMatch};
use ipnet::IpNet;

use super::{Attachment, Holds, Judgement, PolicyFacts, fields::selector, unknown};
use crate::object::{annotation, name_of};

mod attribute;
mod custom;
mod findings;
mod source;
pub(crate) mod trust;

pub use custom::Custom;
use findings::{Findings, named};

/// An AuthorizationPolicy.
pub(crate) type AuthorizationFacts = PolicyFacts<Authorization>;

/// Which proxies enforce a policy, and the translated policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Node proxies; `None` if nothing is left to enforce.
    Ztunnel(Option<Arc<Policy>>),
    /// The waypoints of its targets.
    Waypoint(Attachment<Arc<Policy>>),
    /// The waypoints of its targets, by external authorization.
    Custom(Box<Custom>),
}

impl Authorization {
    /// The policy for node proxies.
    pub fn ztunnel(&self) -> Option<&Arc<Policy>> {
        match self {
            Self::Ztunnel(policy) => policy.as_ref(),
            Self::Waypoint(_) | Self::Custom(_) => None,
        }
    }

    /// The policy for waypoints, with its targets.
    pub fn attachment(&self) -> Option<&Attachment<Arc<Policy>>> {
        match self {
            Self::Ztunnel(_) => None,
            Self::Waypoint(attachment) => Some(attachment),
            Self::Custom(custom) => Some(&custom.attachment),
        }
    }

    /// The policy if it has action CUSTOM.
    pub(crate) fn custom(&self) -> Option<&Custom> {
        match self {
            Self::Ztunnel(_) | Self::Waypoint(_) => None,
            Self::Custom(custom) => Some(custom),
        }
    }
}

/// A translated policy and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The translated policy.
    pub content: Authorization,
    /// The status condition; for an attached policy, only [`Attachment::judge`] can compute it.
    pub judgement: Option<Judgement>,
}

/// The parts of one rule that a node, or any proxy, cannot enforce.
#[derive(Debug, Default)]
struct RuleFindings {
    /// L7 attributes.
    l7: BTreeSet<String>,
    /// Fields with invalid values.
    invalid: Vec<String>,
    /// L7 fields with invalid values, which a node ignores.
    invalid_l7: Vec<String>,
    /// Unknown conditions, L4 or L7.
    unknown: Vec<String>,
}

/// What is left of an alternative after removing invalid values.
enum Alternative {
    /// It still restricts something.
    Limits(Box<Match>),
    /// It matches everything.
    Anything,
}

/// Parses an object.
pub(crate) fn read(
    object: &ambit_api::AuthorizationPolicy,
    roots: &BTreeSet<Arc<str>>,
) -> AuthorizationFacts {
    let name = name_of(&object.metadata);
    let mut translation = translate(&name, &object.spec, roots);
    if annotation(&object.metadata, labels::DRY_RUN).is_some_and(is_true) {
        on_trial(&mut translation);
    }
    PolicyFacts {
        name,
        created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        selector: selector(object.spec.selector.as_ref()),
        judgements: translation.judgement.into_iter().collect(),
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        generation: object.metadata.generation,
        conditions: object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default(),
        content: translation.content,
    }
}

/// Like Go's `strconv.ParseBool`; any other value leaves the policy enforced, as in Istio.
fn is_true(text: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True"].contains(&text)
}

fn on_trial(translation: &mut Translation) {
    match &mut translation.content {
        Authorization::Ztunnel(None) => {}
        Authorization::Ztunnel(Some(policy)) => {
            Arc::make_mut(policy).dry_run = true;
            if let Some(judgement) = &mut translation.judgement {
                judgement.message =
                    format!("dry run: evaluated and logged, not enforced; {}", judgement.message);
            }
        }
        Authorization::Custom(custom) => custom.dry_run = true,
        Authorization::Waypoint(attachment) => match &mut attachment.content {
            Ok(policy) => Arc::make_mut(policy).dry_run = true,
            // A dry-run policy enforces nothing, so it must refuse nothing either.
            Err(_) => attachment.targets.clear(),
        },
    }
}

/// Translates a policy for proxies, with its status. Policies in a root namespace apply to the
/// whole mesh.
pub fn translate(
    name: &NamespacedName,
    spec: &AuthorizationPolicySpec,
    roots: &BTreeSet<Arc<str>>,
) -> Translation {
    let references = spec.target_ref.iter().chain(&spec.target_refs);
    let whole = || for_waypoints(name, spec).map(Arc::new);
    if let Some(mut attachment) = Attachment::read(references, name, roots, whole) {
        if attachment.content.is_err() && spec.action == api::Action::Audit {
            attachment.targets.clear();
        }
        let content = match spec.action {
            api::Action::Custom => {
                let provider = spec.provider.as_ref().map(|p| p.name.as_str()).unwrap_or_default().into();
                Authorization::Custom(Box::new(Custom { attachment, provider, dry_run: false }))
            }
            api::Action::Allow | api::Action::Deny | api::Action::Audit => {
                Authorization::Waypoint(attachment)
            }
        };
        return Translation { content, judgement: None };
    }
    let scope = match (selector(spec.selector.as_ref()), roots.contains(&name.namespace)) {
        (Some(_), _) => Scope::WorkloadSelector,
        (None, true) => Scope::Global,
        (None, false) => Scope::Namespace,
    };
    let (policy, judgement) = for_nodes(name, spec, scope);
    Translation { content: Authorization::Ztunnel(policy.map(Arc::new)), judgement: Some(judgement) }
}

/// The full policy; an error lists everything that cannot be enforced.
fn for_waypoints(name: &NamespacedName, spec: &AuthorizationPolicySpec) -> Result<Policy, String> {
    if spec.selector.is_some() {
        return Err("spec.selector and target references exclude each other".into());
    }
    let action = match spec.action {
        api::Action::Allow => Action::Allow,
        api::Action::Deny => Action::Deny,
        api::Action::Audit => Action::Audit,
        // Requests in doubt are sent to the provider, as DENY denies them.
        api::Action::Custom => Action::Deny,
    };
    if let Some(why) = custom::problem(spec).filter(|_| spec.action == api::Action::Custom) {
        return Err(why);
    }
    let (rules, found): (Vec<Rule>, Vec<RuleFindings>) = rules(name, spec).unzip();
    let mut invalid = unknown::of_authorization(spec);
    for found in found {
        invalid.extend(found.unknown.into_iter().chain(found.invalid).chain(found.invalid_l7));
    }
    if !invalid.is_empty() {
        return Err(named(&invalid));
    }
    Ok(Policy { key: name.clone(), scope: Scope::WorkloadSelector, action, rules, dry_run: false })
}

fn for_nodes(
    name: &NamespacedName,
    spec: &AuthorizationPolicySpec,
    scope: Scope,
) -> (Option<Policy>, Judgement) {
    let action = match spec.action {
        api::Action::Allow => Action::Allow,
        api::Action::Deny => Action::Deny,
        // A node cannot query the provider, so it denies what matches the policy.
        api::Action::Custom => Action::Deny,
        api::Action::Audit => {
            let message =
                format!("ztunnel does not support the {} action: it is not enforced", spec.action.as_str());
            let (holds, reason) = (Holds::False, reason::UNSUPPORTED_VALUE);
            return (None, Judgement { condition: ZTUNNEL_ACCEPTED, holds, reason, message });
        }
    };
    let policy = |action, rules| Policy { key: name.clone(), scope, action, rules, dry_run: false };
    let mut findings = Findings { unknown: unknown::of_authorization(spec), ..Findings::default() };
    findings.invalid.extend(unknown::wildcards(spec.selector.as_ref()));
    let mut left = Vec::new();
    for (rule, found) in rules(name, spec) {
        left.extend(projected(action, &rule, found, &mut findings));
    }
    if !findings.unknown.is_empty() {
        return (Some(policy(Action::Deny, vec![Rule::default()])), findings.refused());
    }
    let mut judgement = findings.judge(action, left.len());
    if spec.action == api::Action::Custom {
        judgement = custom::at_nodes(judgement);
    }
    (policy(action, left).l4(), judgement)
}

/// The part of a rule that a node enforces.
fn projected(action: Action, rule: &Rule, mut found: RuleFindings, findings: &mut Findings) -> Vec<Rule> {
    let is_valid = found.invalid.is_empty();
    let is_plain = found.l7.is_empty() && is_valid;
    findings.unsupported.append(&mut found.l7);
    findings.invalid.append(&mut found.invalid);
    findings.unknown.append(&mut found.unknown);
    match action {
        _ if is_plain => vec![rule.clone()],
        Action::Allow => Vec::new(),
        Action::Deny | Action::Audit if is_valid => {
            let left = rule.deny_at_node();
            match left.as_slice() {
                [] => findings.ineffective += 1,
                [only] if rule.l4(action).as_ref() == Some(only) => {}
                _ => findings.partly += 1,
            }
            left
        }
        Action::Deny | Action::Audit => rule.l4(action).into_iter().collect(),
    }
}

/// All rules without invalid parts, each with those parts.
fn rules(
    name: &NamespacedName,
    spec: &AuthorizationPolicySpec,
) -> impl Iterator<Item = (Rule, RuleFindings)> {
    spec.rules.iter().enumerate().map(|(at, rule)| Translator { at, namespace: &name.namespace }.rule(rule))
}

/// Translates one rule.
struct Translator<'a> {
    at: usize,
    namespace: &'a Arc<str>,
}

impl Translator<'_> {
    fn rule(&self, rule: &api::Rule) -> (Rule, RuleFindings) {
        let mut found = RuleFindings::default();
        let from =
            rule.from.iter().enumerate().map(|(i, from)| self.source(i, &from.source, &mut found)).collect();
        let to =
            rule.to.iter().enumerate().map(|(i, to)| self.operation(i, &to.operation, &mut found)).collect();
        let when: Vec<Vec<Alternative>> =
            rule.when.iter().enumerate().map(|(i, c)| vec![self.condition(i, c, &mut found)]).collect();
        let clauses = [from, to]
            .into_iter()
            .chain(when)
            .filter_map(|alternatives: Vec<Alternative>| clause(alternatives))
            .collect();
        (Rule { clauses }, found)
    }

    fn path(&self, field: &str) -> String {
        format!("spec.rules[{}].{field}", self.at)
    }
}

/// If one of the alternatives always matches, the clause restricts nothing.
fn clause(alternatives: Vec<Alternative>) -> Option<Clause> {
    if alternatives.is_empty() {
        return None;
    }
    let matches = alternatives.into_iter().map(|alternative| match alternative {
        Alternative::Limits(found) => Some(*found),
        Alternative::Anything => None,
    });
    Some(Clause { matches: matches.collect::<Option<Vec<Match>>>()? })
}

fn string(text: &str) -> Result<StringMatch, String> {
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("", _, _) => Err("it is empty".into()),
        ("*", _, _) => Ok(StringMatch::Presence),
        (_, Some(suffix), _) => Ok(StringMatch::Suffix(suffix.into())),
        (_, None, Some(prefix)) => Ok(StringMatch::Prefix(prefix.into())),
        (exact, None, None) => Ok(StringMatch::Exact(exact.into())),
    }
}

/// For values that cannot contain a `*`: one in the middle would never match.
fn wildcard(text: &str) -> Result<StringMatch, String> {
    let is_inside = match string(text)? {
        StringMatch::Exact(part) | StringMatch::Prefix(part) | StringMatch::Suffix(part) => {
            part.contains('*')
        }
        StringMatch::Presence => false,
    };
    if is_inside { Err("* is allowed once, at the beginning or the end".into()) } else { string(text) }
}

fn principal(text: &str) -> Result<StringMatch, String> {
    wildcard(text.strip_prefix("spiffe://").unwrap_or(text))
}

fn trust_domain(text: &str) -> Result<StringMatch, String> {
    if text.contains('/') {
        return Err("a trust domain cannot contain /".into());
    }
    wildcard(text)
}

fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map(|net| net.trunc()).map_err(|_| "it is neither an address nor a CIDR".into())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| "it is not a port (1 to 65535)".into())
}

#[cfg(test)]
mod tests;
