//! AuthorizationPolicy to L4 policy.
//!
//! Invariant: what is enforced is never weaker than the policy as written. An ALLOW rule with anything that cannot be
//! enforced is left out; a DENY rule is enforced without what cannot be. The only exception, a DENY rule of which
//! nothing is left because all of it is L7, is reported as False.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ambit_api::{
    conditions::{WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED, reason},
    labels,
    policy::{self as api, AuthorizationPolicySpec},
};
use ambit_model::{Action, Clause, Match, NamespacedName, Policy, Rule, Scope, StringMatch};
use ipnet::IpNet;

use super::{AuthorizationFacts, Holds, Judgement, PolicyFacts, selector};
use crate::object::{annotation, name_of};

mod source;

/// Most fields that a status message names.
const FIELDS_NAMED_MAX: usize = 8;

/// What proxies get, and what the status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// What proxies get, if anything.
    pub policy: Option<Policy>,
    /// What the status says.
    pub judgement: Judgement,
}

/// What could not be enforced as written, gathered over the rules of one policy.
#[derive(Debug, Default)]
struct Findings {
    /// Attributes of L7.
    unsupported: BTreeSet<String>,
    /// Fields with values that cannot be parsed.
    invalid: Vec<String>,
    /// Rules of a DENY of which nothing is left.
    ineffective: usize,
}

/// Whether an alternative limits anything once what cannot be enforced is taken away.
enum Alternative {
    /// It does.
    Limits(Box<Match>),
    /// It has become true for everything.
    Anything,
}

/// Reads an object.
pub(crate) fn read(object: &ambit_api::AuthorizationPolicy, system_namespace: &str) -> AuthorizationFacts {
    let name = name_of(&object.metadata);
    let dry_run = annotation(&object.metadata, labels::DRY_RUN) == Some("true");
    let mut translation = translate(&name, &object.spec, system_namespace);
    if dry_run {
        translation = on_trial(translation);
    }
    PolicyFacts {
        name,
        created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        selector: selector(object.spec.selector.as_ref()),
        judgement: translation.judgement,
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        generation: object.metadata.generation,
        conditions: object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default(),
        content: translation.policy.map(Arc::new),
    }
}

fn on_trial(mut translation: Translation) -> Translation {
    if let Some(policy) = &mut translation.policy {
        policy.dry_run = true;
        translation.judgement.message =
            format!("dry run: judged and logged, not enforced; {}", translation.judgement.message);
    }
    translation
}

/// What proxies get of a policy, and what its status says.
pub fn translate(
    name: &NamespacedName,
    spec: &AuthorizationPolicySpec,
    system_namespace: &str,
) -> Translation {
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        return rejected(
            WAYPOINT_ACCEPTED,
            reason::ANCESTOR_NOT_BOUND,
            "a policy with targetRefs is enforced by a waypoint, and this mesh runs none: it is not enforced"
                .into(),
        );
    }
    let action = match spec.action {
        api::Action::Allow => Action::Allow,
        api::Action::Deny => Action::Deny,
        api::Action::Audit | api::Action::Custom => {
            let text =
                format!("ztunnel does not support the {} action: it is not enforced", spec.action.as_str());
            return rejected(ZTUNNEL_ACCEPTED, reason::UNSUPPORTED_VALUE, text);
        }
    };
    let mut findings = Findings::default();
    let rules: Vec<Rule> = spec
        .rules
        .iter()
        .enumerate()
        .filter_map(|(at, rule)| {
            Translator { action, at, namespace: &name.namespace }.rule(rule, &mut findings)
        })
        .collect();
    let scope = match (selector(spec.selector.as_ref()), &*name.namespace == system_namespace) {
        (Some(_), _) => Scope::WorkloadSelector,
        (None, true) => Scope::Global,
        (None, false) => Scope::Namespace,
    };
    let judgement = judge(action, rules.len(), &findings);
    let is_void = action == Action::Deny && rules.is_empty();
    let policy = Policy { key: name.clone(), scope, action, rules, dry_run: false };
    Translation { policy: (!is_void).then_some(policy), judgement }
}

fn rejected(condition: &'static str, reason: &'static str, message: String) -> Translation {
    Translation { policy: None, judgement: Judgement { condition, holds: Holds::False, reason, message } }
}

fn judge(action: Action, rules: usize, findings: &Findings) -> Judgement {
    let says = |holds, reason, message| Judgement { condition: ZTUNNEL_ACCEPTED, holds, reason, message };
    let unsupported: Vec<String> = findings.unsupported.iter().cloned().collect();
    let enforced = match action {
        Action::Allow => "rules that use them allow nothing",
        Action::Deny => "rules that use them deny without them",
    };
    if !findings.invalid.is_empty() {
        return says(Holds::False, reason::INVALID, format!("{}; {enforced}", named(&findings.invalid)));
    }
    if action == Action::Deny && rules == 0 {
        let why = match unsupported.as_slice() {
            [] => "a DENY policy without rules denies nothing".to_owned(),
            fields => format!(
                "{} cannot be enforced by ztunnel and nothing else is left: it denies nothing",
                named(fields)
            ),
        };
        return says(Holds::False, reason::INEFFECTIVE, why);
    }
    if findings.ineffective > 0 {
        let why = format!(
            "{} cannot be enforced by ztunnel: {} rule(s) deny nothing, {rules} rule(s) are enforced",
            named(&unsupported),
            findings.ineffective
        );
        return says(Holds::False, reason::UNSUPPORTED_VALUE, why);
    }
    if !unsupported.is_empty() {
        let why = format!("attached to ztunnel, which cannot enforce {}; {enforced}", named(&unsupported));
        return says(Holds::True, reason::UNSUPPORTED_VALUE, why);
    }
    says(Holds::True, reason::ACCEPTED, "attached to ztunnel".into())
}

fn named(fields: &[String]) -> String {
    let shown: Vec<&str> = fields.iter().take(FIELDS_NAMED_MAX).map(String::as_str).collect();
    match fields.len().checked_sub(FIELDS_NAMED_MAX) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Translates the rules of one policy.
struct Translator<'a> {
    action: Action,
    at: usize,
    namespace: &'a Arc<str>,
}

impl Translator<'_> {
    fn rule(&self, rule: &api::Rule, findings: &mut Findings) -> Option<Rule> {
        let mut found = Findings::default();
        let from =
            rule.from.iter().enumerate().map(|(i, from)| self.source(i, &from.source, &mut found)).collect();
        let to =
            rule.to.iter().enumerate().map(|(i, to)| self.operation(i, &to.operation, &mut found)).collect();
        let when: Vec<Vec<Alternative>> =
            rule.when.iter().enumerate().map(|(i, c)| vec![self.condition(i, c, &mut found)]).collect();
        let clauses: Vec<Clause> = [from, to]
            .into_iter()
            .chain(when)
            .filter_map(|alternatives: Vec<Alternative>| clause(alternatives))
            .collect();
        let is_plain = found.unsupported.is_empty() && found.invalid.is_empty();
        let is_l7_only = found.invalid.is_empty() && clauses.is_empty();
        findings.unsupported.append(&mut found.unsupported);
        findings.invalid.append(&mut found.invalid);
        match self.action {
            _ if is_plain => Some(Rule { clauses }),
            Action::Allow => None,
            Action::Deny if is_l7_only => {
                findings.ineffective += 1;
                None
            }
            Action::Deny => Some(Rule { clauses }),
        }
    }

    fn path(&self, field: &str) -> String {
        format!("spec.rules[{}].{field}", self.at)
    }
}

/// Alternatives of which one is always true limit nothing.
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

fn principal(text: &str) -> Result<StringMatch, String> {
    string(text.strip_prefix("spiffe://").unwrap_or(text))
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
