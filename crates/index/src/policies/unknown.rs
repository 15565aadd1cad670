//! Unknown fields of policies.
//!
//! Invariant: a policy with an unknown field is never treated as if the field were absent, because
//! the field may restrict it.

use ambit_api::policy::{
    AuthorizationPolicySpec, PeerAuthenticationSpec, RequestAuthenticationSpec, TargetReference, Unknown,
    WorkloadSelector,
};

/// Paths of unknown fields in an AuthorizationPolicy.
pub(super) fn of_authorization(spec: &AuthorizationPolicySpec) -> Vec<String> {
    let mut found = Vec::new();
    note("spec", &spec.unknown, &mut found);
    of_selector(spec.selector.as_ref(), &mut found);
    of_targets(spec.target_ref.iter().chain(&spec.target_refs), &mut found);
    if let Some(provider) = &spec.provider {
        note("spec.provider", &provider.unknown, &mut found);
    }
    for (at, rule) in spec.rules.iter().enumerate() {
        let rule_path = format!("spec.rules[{at}]");
        note(&rule_path, &rule.unknown, &mut found);
        for (at, from) in rule.from.iter().enumerate() {
            note(&format!("{rule_path}.from[{at}]"), &from.unknown, &mut found);
            note(&format!("{rule_path}.from[{at}].source"), &from.source.unknown, &mut found);
        }
        for (at, to) in rule.to.iter().enumerate() {
            note(&format!("{rule_path}.to[{at}]"), &to.unknown, &mut found);
            note(&format!("{rule_path}.to[{at}].operation"), &to.operation.unknown, &mut found);
        }
        for (at, when) in rule.when.iter().enumerate() {
            note(&format!("{rule_path}.when[{at}]"), &when.unknown, &mut found);
        }
    }
    found
}

/// Paths of unknown fields in a RequestAuthentication.
pub(super) fn of_request_authentication(spec: &RequestAuthenticationSpec) -> Vec<String> {
    let mut found = Vec::new();
    note("spec", &spec.unknown, &mut found);
    of_selector(spec.selector.as_ref(), &mut found);
    of_targets(spec.target_ref.iter().chain(&spec.target_refs), &mut found);
    for (at, rule) in spec.jwt_rules.iter().enumerate() {
        let path = format!("spec.jwtRules[{at}]");
        note(&path, &rule.unknown, &mut found);
        for (at, from) in rule.from_headers.iter().enumerate() {
            note(&format!("{path}.fromHeaders[{at}]"), &from.unknown, &mut found);
        }
        for (at, output) in rule.output_claim_to_headers.iter().enumerate() {
            note(&format!("{path}.outputClaimToHeaders[{at}]"), &output.unknown, &mut found);
        }
    }
    found
}

/// Paths of unknown fields in a PeerAuthentication.
pub(super) fn of_peer_authentication(spec: &PeerAuthenticationSpec) -> Vec<String> {
    let mut found = Vec::new();
    note("spec", &spec.unknown, &mut found);
    of_selector(spec.selector.as_ref(), &mut found);
    if let Some(mtls) = &spec.mtls {
        note("spec.mtls", &mtls.unknown, &mut found);
    }
    for (port, mtls) in &spec.port_level_mtls {
        note(&format!("spec.portLevelMtls[{port}]"), &mtls.unknown, &mut found);
    }
    found
}

/// Selector labels that match no pod because they contain a `*`; wildcards are not supported.
pub(super) fn wildcards(selector: Option<&WorkloadSelector>) -> Vec<String> {
    let labels = selector.into_iter().flat_map(|selector| &selector.match_labels);
    let wild = labels.filter(|(name, value)| name.contains('*') || value.contains('*'));
    wild.map(|(name, value)| {
        format!(
            "spec.selector.matchLabels {name}={value} contains a *, which is not a wildcard: no pod is selected"
        )
    })
    .collect()
}

fn of_selector(selector: Option<&WorkloadSelector>, found: &mut Vec<String>) {
    if let Some(selector) = selector {
        note("spec.selector", &selector.unknown, found);
    }
}

fn of_targets<'a>(targets: impl Iterator<Item = &'a TargetReference>, found: &mut Vec<String>) {
    for target in targets {
        note(&format!("the reference to {} {}", target.kind, target.name), &target.unknown, found);
    }
}

fn note(path: &str, unknown: &Unknown, found: &mut Vec<String>) {
    found.extend(unknown.keys().map(|name| format!("{path}.{name} is not known")));
}
