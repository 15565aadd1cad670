//! Encoding of `istio.security.Authorization`.
//!
//! Invariant: neither encoding nor decoding weakens a policy. A condition that cannot be encoded or
//! is unknown never widens an ALLOW and never makes a DENY match less.

use ambit_model::{Action, Clause, Match, NamespacedName, Policy, Rule, Scope, StringMatch};
use ambit_proto::{security as wire, waypoint::TrustDomains};
use ipnet::IpNet;
use prost::Message;
use prost_types::Any;
use wire::string_match::MatchType;

use crate::{
    DecodeError,
    field::{self, Invalid, list},
};

/// Name of the match extension for trust domains.
const TRUST_DOMAINS: &str = "ambit.dev/trust-domains";
/// Its type URL.
const TRUST_DOMAINS_TYPE: &str = "type.googleapis.com/ambit.waypoint.v1.TrustDomains";

/// Encodes the L4 projection of a policy ([`Policy::l4`]). If nothing is left of it, the result is
/// a DENY without rules, which matches nothing.
pub fn encode_policy(policy: &Policy) -> wire::Authorization {
    let clause =
        |clause: &Clause| wire::Clause { matches: clause.matches.iter().map(encode_match).collect() };
    let rules = policy.l4().map(|policy| policy.rules).unwrap_or_default();
    wire::Authorization {
        name: policy.key.name.to_string(),
        namespace: policy.key.namespace.to_string(),
        scope: match policy.scope {
            Scope::Global => wire::Scope::Global,
            Scope::Namespace => wire::Scope::Namespace,
            Scope::WorkloadSelector => wire::Scope::WorkloadSelector,
        }
        .into(),
        action: match policy.action {
            Action::Allow => wire::Action::Allow,
            Action::Deny | Action::Audit => wire::Action::Deny,
        }
        .into(),
        rules: rules
            .iter()
            .map(|rule| wire::Rule { clauses: rule.clauses.iter().map(clause).collect() })
            .collect(),
        dry_run: policy.dry_run,
        extensions: Vec::new(),
    }
}

/// Decodes a policy.
///
/// # Errors
/// The invalid field; the receiver must then deny in the policy's scope.
pub fn decode_policy(message: wire::Authorization) -> Result<Policy, DecodeError> {
    let name = format!("{}/{}", message.namespace, message.name);
    decode(message).map_err(|invalid| invalid.of(&name))
}

/// The scope for this number, if it is known.
pub(crate) fn scope(number: i32) -> Option<Scope> {
    Some(match wire::Scope::try_from(number).ok()? {
        wire::Scope::Global => Scope::Global,
        wire::Scope::Namespace => Scope::Namespace,
        wire::Scope::WorkloadSelector => Scope::WorkloadSelector,
    })
}

fn decode(message: wire::Authorization) -> Result<Policy, Invalid> {
    let action = match field::enumeration("action", message.action)? {
        wire::Action::Allow => Action::Allow,
        wire::Action::Deny => Action::Deny,
    };
    if action == Action::Allow && !message.extensions.is_empty() {
        return Err(Invalid::new("extensions", "may narrow an ALLOW policy and are not supported"));
    }
    let clause = |clause: wire::Clause| {
        let matches = clause.matches.into_iter().map(|m| decode_match(m, action));
        Ok(Clause { matches: matches.collect::<Result<_, _>>()? })
    };
    let rule = |rule: wire::Rule| {
        let clauses = rule.clauses.into_iter().map(clause);
        Ok(Rule { clauses: clauses.collect::<Result<_, Invalid>>()? })
    };
    Ok(Policy {
        key: NamespacedName {
            namespace: message.namespace.into(),
            name: field::required("name", message.name)?,
        },
        scope: scope(message.scope)
            .ok_or_else(|| Invalid::new("scope", format!("value {} is not known", message.scope)))?,
        action,
        rules: message.rules.into_iter().map(rule).collect::<Result<_, Invalid>>()?,
        dry_run: message.dry_run,
    })
}

pub(crate) fn encode_match(m: &Match) -> wire::Match {
    let strings = |list: &[StringMatch]| list.iter().map(encode_string).collect();
    let nets = |list: &[IpNet]| list.iter().map(encode_net).collect();
    let ports = |list: &[u16]| list.iter().map(|port| u32::from(*port)).collect();
    let accounts = |list: &[NamespacedName]| list.iter().map(encode_account).collect();
    wire::Match {
        namespaces: strings(&m.namespaces),
        not_namespaces: strings(&m.not_namespaces),
        principals: strings(&m.principals),
        not_principals: strings(&m.not_principals),
        source_ips: nets(&m.source_ips),
        not_source_ips: nets(&m.not_source_ips),
        destination_ips: nets(&m.destination_ips),
        not_destination_ips: nets(&m.not_destination_ips),
        destination_ports: ports(&m.destination_ports),
        not_destination_ports: ports(&m.not_destination_ports),
        service_accounts: accounts(&m.service_accounts),
        not_service_accounts: accounts(&m.not_service_accounts),
        extensions: encode_trust_domains(m).into_iter().collect(),
    }
}

/// `None` if the match has no trust domain conditions.
fn encode_trust_domains(m: &Match) -> Option<wire::Extension> {
    let strings = |list: &[StringMatch]| list.iter().map(encode_string).collect();
    let is_said = !(m.trust_domains.is_empty() && m.not_trust_domains.is_empty());
    let domains = TrustDomains {
        trust_domains: strings(&m.trust_domains),
        not_trust_domains: strings(&m.not_trust_domains),
    };
    is_said.then(|| wire::Extension {
        name: TRUST_DOMAINS.into(),
        config: Some(Any { type_url: TRUST_DOMAINS_TYPE.into(), value: domains.encode_to_vec() }),
    })
}

/// The known extension, and whether there are unknown ones.
fn decode_extensions(extensions: Vec<wire::Extension>) -> Result<(TrustDomains, bool), Invalid> {
    let mut known = TrustDomains::default();
    let mut is_extended = false;
    for wire::Extension { name, config } in extensions {
        if name != TRUST_DOMAINS {
            is_extended = true;
            continue;
        }
        let config = field::present("match.extensions", config)?;
        known
            .merge(&*config.value)
            .map_err(|error| Invalid::new("match.extensions", format!("{TRUST_DOMAINS}: {error}")))?;
    }
    Ok((known, is_extended))
}

/// Extensions are conditions, and unknown ones are dropped. That would widen an ALLOW, and would
/// leave a DENY without other conditions matching nothing, so both are rejected. A DENY with other
/// conditions only becomes stricter.
pub(crate) fn decode_match(m: wire::Match, action: Action) -> Result<Match, Invalid> {
    let (trust, extended) = decode_extensions(m.extensions)?;
    let decoded = Match {
        trust_domains: list(trust.trust_domains, |s| decode_string("trust_domains", s))?,
        not_trust_domains: list(trust.not_trust_domains, |s| decode_string("not_trust_domains", s))?,
        namespaces: list(m.namespaces, |s| decode_string("namespaces", s))?,
        not_namespaces: list(m.not_namespaces, |s| decode_string("not_namespaces", s))?,
        principals: list(m.principals, |s| decode_string("principals", s))?,
        not_principals: list(m.not_principals, |s| decode_string("not_principals", s))?,
        source_ips: list(m.source_ips, |net| decode_net("source_ips", &net))?,
        not_source_ips: list(m.not_source_ips, |net| decode_net("not_source_ips", &net))?,
        destination_ips: list(m.destination_ips, |net| decode_net("destination_ips", &net))?,
        not_destination_ips: list(m.not_destination_ips, |net| decode_net("not_destination_ips", &net))?,
        destination_ports: list(m.destination_ports, |port| field::port("destination_ports", port))?,
        not_destination_ports: list(m.not_destination_ports, |p| field::port("not_destination_ports", p))?,
        service_accounts: list(m.service_accounts, |a| decode_account("service_accounts", a))?,
        not_service_accounts: list(m.not_service_accounts, |a| decode_account("not_service_accounts", a))?,
        request: None,
    };
    match action {
        Action::Allow if extended => {
            Err(Invalid::new("match.extensions", "may narrow an ALLOW rule and are not supported"))
        }
        Action::Deny | Action::Audit if extended && decoded.is_empty() => Err(Invalid::new(
            "match.extensions",
            "are the only conditions of a DENY match, and are not supported",
        )),
        Action::Allow | Action::Deny | Action::Audit => Ok(decoded),
    }
}

pub(crate) fn encode_string(m: &StringMatch) -> wire::StringMatch {
    wire::StringMatch {
        match_type: Some(match m {
            StringMatch::Exact(text) => MatchType::Exact(text.to_string()),
            StringMatch::Prefix(text) => MatchType::Prefix(text.to_string()),
            StringMatch::Suffix(text) => MatchType::Suffix(text.to_string()),
            StringMatch::Presence => MatchType::Presence(wire::Empty {}),
        }),
    }
}

pub(crate) fn decode_string(field: &'static str, m: wire::StringMatch) -> Result<StringMatch, Invalid> {
    Ok(match m.match_type {
        Some(MatchType::Exact(text)) => StringMatch::Exact(field::required(field, text)?),
        Some(MatchType::Prefix(text)) => StringMatch::Prefix(field::required(field, text)?),
        Some(MatchType::Suffix(text)) => StringMatch::Suffix(field::required(field, text)?),
        Some(MatchType::Presence(_)) => StringMatch::Presence,
        None => return Err(Invalid::new(field, "contains a match of an unknown kind")),
    })
}

pub(crate) fn encode_net(net: &IpNet) -> wire::Address {
    wire::Address { address: field::ip_bytes(net.addr()), length: net.prefix_len().into() }
}

/// A v4-mapped network (`::ffff:10.0.0.0/104`) would never match, because addresses are compared in
/// canonical form.
pub(crate) fn decode_net(field: &'static str, net: &wire::Address) -> Result<IpNet, Invalid> {
    let ip = field::ip(field, &net.address)?;
    let mapped = u32::from(ip.is_ipv4() && net.address.len() == 16) * 96;
    let length = net.length.checked_sub(mapped).and_then(|length| u8::try_from(length).ok());
    length
        .and_then(|length| IpNet::new(ip, length).ok())
        .ok_or_else(|| Invalid::new(field, format!("{ip} has no prefix of {} bits", net.length)))
}

fn encode_account(name: &NamespacedName) -> wire::ServiceAccountMatch {
    wire::ServiceAccountMatch {
        namespace: name.namespace.to_string(),
        service_account: name.name.to_string(),
    }
}

fn decode_account(
    field: &'static str,
    account: wire::ServiceAccountMatch,
) -> Result<NamespacedName, Invalid> {
    Ok(NamespacedName {
        namespace: field::required(field, account.namespace)?,
        name: field::required(field, account.service_account)?,
    })
}
