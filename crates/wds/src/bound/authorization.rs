//! Encoding of `ambit.waypoint.v1.Policy`.
//!
//! Invariant: a decoded policy is complete. An unknown condition rejects the service, because
//! ignoring it could widen an ALLOW or narrow a DENY.

use ambit_model::{
    Action, Clause, Match, Policy, Rule, Scope, StringMatch,
    authorization::{Attribute, AttributeMatch, PathPattern, RequestMatch},
};
use ambit_proto::{security, waypoint as wire};
use ipnet::IpNet;

use super::destination::{decode_name, encode_name};
use crate::{
    field::{self, Invalid, list},
    policy::{decode_match, decode_net, decode_string, encode_match, encode_net, encode_string},
};

pub(super) fn encode_policy(policy: &Policy) -> wire::Policy {
    let clause =
        |clause: &Clause| wire::Clause { matches: clause.matches.iter().map(encode_whole_match).collect() };
    let rule = |rule: &Rule| wire::Rule { clauses: rule.clauses.iter().map(clause).collect() };
    wire::Policy {
        name: Some(encode_name(&policy.key)),
        scope: match policy.scope {
            Scope::Global => wire::policy::Scope::Global,
            Scope::Namespace => wire::policy::Scope::Namespace,
            Scope::WorkloadSelector => wire::policy::Scope::WorkloadSelector,
        }
        .into(),
        action: match policy.action {
            Action::Allow => wire::policy::Action::Allow,
            Action::Deny => wire::policy::Action::Deny,
            Action::Audit => wire::policy::Action::Audit,
        }
        .into(),
        rules: policy.rules.iter().map(rule).collect(),
        dry_run: policy.dry_run,
        provider: None,
    }
}

pub(super) fn decode_policy(message: wire::Policy) -> Result<Policy, Invalid> {
    let clause = |clause: wire::Clause| Ok(Clause { matches: list(clause.matches, decode_whole_match)? });
    let rule = |rule: wire::Rule| Ok(Rule { clauses: list(rule.clauses, clause)? });
    Ok(Policy {
        key: decode_name("authorization.name", message.name)?,
        scope: match field::enumeration("authorization.scope", message.scope)? {
            wire::policy::Scope::Global => Scope::Global,
            wire::policy::Scope::Namespace => Scope::Namespace,
            wire::policy::Scope::WorkloadSelector => Scope::WorkloadSelector,
        },
        action: match field::enumeration("authorization.action", message.action)? {
            wire::policy::Action::Allow => Action::Allow,
            wire::policy::Action::Deny => Action::Deny,
            wire::policy::Action::Audit => Action::Audit,
            wire::policy::Action::Custom => {
                return Err(Invalid::new(
                    "authorization.action",
                    "must not be that of a policy with a provider",
                ));
            }
        },
        rules: list(message.rules, rule)?,
        dry_run: message.dry_run,
    })
}

fn encode_whole_match(m: &Match) -> wire::Match {
    wire::Match { connection: Some(encode_match(m)), request: m.request.as_deref().map(encode_request) }
}

fn decode_whole_match(message: wire::Match) -> Result<Match, Invalid> {
    let connection = field::present("match.connection", message.connection)?;
    // An extension may restrict an ALLOW, so decoding as ALLOW rejects unknown ones.
    let of_connection = decode_match(connection, Action::Allow)?;
    let request = message.request.map(|request| decode_request(request).map(Box::new));
    Ok(Match { request: request.transpose()?, ..of_connection })
}

fn encode_request(m: &RequestMatch) -> wire::RequestMatch {
    let strings = |list: &[StringMatch]| list.iter().map(encode_string).collect();
    let paths = |list: &[PathPattern]| list.iter().map(encode_path).collect();
    let nets = |list: &[IpNet]| list.iter().map(encode_net).collect();
    wire::RequestMatch {
        hosts: strings(&m.hosts),
        not_hosts: strings(&m.not_hosts),
        methods: strings(&m.methods),
        not_methods: strings(&m.not_methods),
        paths: paths(&m.paths),
        not_paths: paths(&m.not_paths),
        principals: strings(&m.principals),
        not_principals: strings(&m.not_principals),
        remote_ips: nets(&m.remote_ips),
        not_remote_ips: nets(&m.not_remote_ips),
        trusted_proxies: m.trusted_proxies,
        attributes: m.attributes.iter().map(encode_attribute).collect(),
    }
}

fn decode_request(m: wire::RequestMatch) -> Result<RequestMatch, Invalid> {
    let strings = |field, strings: Vec<security::StringMatch>| list(strings, |m| decode_string(field, m));
    let nets = |field, nets: Vec<security::Address>| list(nets, |net| decode_net(field, &net));
    let paths = |field, paths: Vec<wire::PathPattern>| list(paths, |path| decode_path(field, path));
    Ok(RequestMatch {
        hosts: strings("request.hosts", m.hosts)?,
        not_hosts: strings("request.not_hosts", m.not_hosts)?,
        methods: strings("request.methods", m.methods)?,
        not_methods: strings("request.not_methods", m.not_methods)?,
        paths: paths("request.paths", m.paths)?,
        not_paths: paths("request.not_paths", m.not_paths)?,
        principals: strings("request.principals", m.principals)?,
        not_principals: strings("request.not_principals", m.not_principals)?,
        remote_ips: nets("request.remote_ips", m.remote_ips)?,
        not_remote_ips: nets("request.not_remote_ips", m.not_remote_ips)?,
        trusted_proxies: m.trusted_proxies,
        attributes: list(m.attributes, decode_attribute)?,
    })
}

fn encode_path(pattern: &PathPattern) -> wire::PathPattern {
    use wire::path_pattern::Kind;
    let kind = match pattern {
        PathPattern::Text(text) => Kind::Text(encode_string(text)),
        PathPattern::Template(template) => Kind::Template(template.to_string()),
    };
    wire::PathPattern { kind: Some(kind) }
}

fn decode_path(field: &'static str, message: wire::PathPattern) -> Result<PathPattern, Invalid> {
    use wire::path_pattern::Kind;
    Ok(match field::present(field, message.kind)? {
        Kind::Text(text) => PathPattern::Text(decode_string(field, text)?),
        Kind::Template(text) => {
            let unreadable = |error| Invalid::new(field, format!("template {text:?}: {error}"));
            PathPattern::Template(text.parse().map_err(unreadable)?)
        }
    })
}

fn encode_attribute(m: &AttributeMatch) -> wire::AttributeMatch {
    use wire::attribute_match::Attribute as Wire;
    let attribute = match &m.attribute {
        Attribute::Header(name) => Wire::Header(name.to_string()),
        Attribute::HeaderMembers(name) => Wire::HeaderMembers(name.to_string()),
        Attribute::Authority => Wire::Authority(wire::Empty {}),
        Attribute::Presenter => Wire::Presenter(wire::Empty {}),
        Attribute::Audiences => Wire::Audiences(wire::Empty {}),
        Attribute::Claim(path) => Wire::Claim(wire::Claim { path: field::texts(path) }),
        Attribute::Sni => Wire::Sni(wire::Empty {}),
    };
    wire::AttributeMatch {
        attribute: Some(attribute),
        values: m.values.iter().map(encode_string).collect(),
        not_values: m.not_values.iter().map(encode_string).collect(),
    }
}

fn decode_attribute(m: wire::AttributeMatch) -> Result<AttributeMatch, Invalid> {
    use wire::attribute_match::Attribute as Wire;
    let attribute = match field::present("request.attributes", m.attribute)? {
        Wire::Header(name) => Attribute::Header(field::header("request.attributes.header", name)?),
        Wire::HeaderMembers(name) => {
            Attribute::HeaderMembers(field::header("request.attributes.header_members", name)?)
        }
        Wire::Authority(wire::Empty {}) => Attribute::Authority,
        Wire::Presenter(wire::Empty {}) => Attribute::Presenter,
        Wire::Audiences(wire::Empty {}) => Attribute::Audiences,
        Wire::Claim(claim) => Attribute::Claim(decode_claim(claim)?),
        Wire::Sni(wire::Empty {}) => Attribute::Sni,
    };
    Ok(AttributeMatch {
        attribute,
        values: list(m.values, |m| decode_string("request.attributes.values", m))?,
        not_values: list(m.not_values, |m| decode_string("request.attributes.not_values", m))?,
    })
}

fn decode_claim(claim: wire::Claim) -> Result<Vec<std::sync::Arc<str>>, Invalid> {
    if claim.path.is_empty() {
        return Err(Invalid::new("request.attributes.claim", "names no claim"));
    }
    list(claim.path, |part| field::required("request.attributes.claim", part))
}
