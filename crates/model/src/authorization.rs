//! Authorization policies and how they are evaluated for a connection or a request.
//!
//! Invariant: evaluation is total and fails closed. A policy that is referenced but unknown denies,
//! and the L4 projection of a policy never allows what the full policy denies.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

mod evaluate;
mod path;
mod policy_set;
mod projection;
mod request;
mod server_name;
mod string_match;
#[cfg(test)]
mod tests;

pub use path::{
    InvalidPathPattern, PathPattern, PathTemplate,
    readings::{UnreadablePath, normalize_path},
};
pub use policy_set::{Applied, PolicySet};
pub use request::{Attribute, AttributeMatch, Headers, Request, RequestMatch, Token};
pub use string_match::StringMatch;

use crate::{NamespacedName, Spiffe};

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every workload.
    Global,
    /// Every workload in the policy's namespace.
    Namespace,
    /// Only workloads that list the policy in [`crate::Workload::authorization_policies`].
    WorkloadSelector,
}

/// The effect of a matching rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Once any ALLOW policy applies, only matching traffic passes.
    Allow,
    /// Matching traffic is denied, even if an ALLOW policy matches too.
    Deny,
    /// Matching traffic is logged; the verdict does not change.
    Audit,
}

/// One alternative: every field that is not empty must match. Values of one field are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Namespace of the peer's identity.
    pub namespaces: Vec<StringMatch>,
    /// Namespaces that must not match.
    pub not_namespaces: Vec<StringMatch>,
    /// Peer identity, without the `spiffe://` prefix.
    pub principals: Vec<StringMatch>,
    /// Identities that must not match, without the `spiffe://` prefix.
    pub not_principals: Vec<StringMatch>,
    /// Trust domain of the peer's identity.
    pub trust_domains: Vec<StringMatch>,
    /// Trust domains that must not match.
    pub not_trust_domains: Vec<StringMatch>,
    /// Address of the direct peer.
    pub source_ips: Vec<IpNet>,
    /// Peer addresses that must not match.
    pub not_source_ips: Vec<IpNet>,
    /// Destination address on the workload.
    pub destination_ips: Vec<IpNet>,
    /// Destination addresses that must not match.
    pub not_destination_ips: Vec<IpNet>,
    /// Port on the workload (the target port, never 15008).
    pub destination_ports: Vec<u16>,
    /// Destination ports that must not match.
    pub not_destination_ports: Vec<u16>,
    /// `(namespace, service account)` of the peer, in any trust domain.
    pub service_accounts: Vec<NamespacedName>,
    /// Service accounts that must not match.
    pub not_service_accounts: Vec<NamespacedName>,
    /// Conditions on the request (L7). Boxed because most matches have none.
    pub request: Option<Box<RequestMatch>>,
}

/// One condition of a rule: at least one of its matches must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// The alternatives.
    pub matches: Vec<Match>,
}

/// All clauses must hold; a rule without clauses matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The conditions, combined with AND.
    pub clauses: Vec<Clause>,
}

/// One authorization policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `namespace/name`, the xDS resource name.
    pub key: NamespacedName,
    /// Which workloads it applies to.
    pub scope: Scope,
    /// The effect when a rule matches.
    pub action: Action,
    /// One of them must match. A policy without rules never matches.
    pub rules: Vec<Rule>,
    /// Evaluate and log, but do not enforce.
    pub dry_run: bool,
}

/// The connection to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Peer identity proven by mTLS; `None` for plaintext.
    pub source: Option<Spiffe>,
    /// Client address.
    pub source_ip: IpAddr,
    /// Destination address on the workload.
    pub destination_ip: IpAddr,
    /// Destination port on the workload.
    pub destination_port: u16,
}

/// The result of an evaluation, with the policy that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No policy applies.
    AllowedByDefault,
    /// An ALLOW policy matched.
    AllowedBy(NamespacedName),
    /// A DENY policy matched.
    DeniedBy(NamespacedName),
    /// ALLOW policies apply, but none of them matched.
    NotAllowed,
    /// The workload lists a policy that this process has not received.
    UnknownPolicy(NamespacedName),
    /// A policy applies that could not be parsed, so what it denies is unknown.
    UnreadablePolicy(NamespacedName),
    /// No policies have been received yet.
    PoliciesNotReceived,
}

impl Verdict {
    /// Whether the connection or request may proceed.
    pub fn is_allowed(&self) -> bool {
        match self {
            Self::AllowedByDefault | Self::AllowedBy(_) => true,
            Self::DeniedBy(_)
            | Self::NotAllowed
            | Self::UnknownPolicy(_)
            | Self::UnreadablePolicy(_)
            | Self::PoliciesNotReceived => false,
        }
    }

    /// The policy that decided, if a single policy did.
    pub fn policy(&self) -> Option<&NamespacedName> {
        match self {
            Self::AllowedBy(key)
            | Self::DeniedBy(key)
            | Self::UnknownPolicy(key)
            | Self::UnreadablePolicy(key) => Some(key),
            Self::AllowedByDefault | Self::NotAllowed | Self::PoliciesNotReceived => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowedByDefault => f.write_str("allowed: no policy applies"),
            Self::AllowedBy(key) => write!(f, "allowed by {key}"),
            Self::DeniedBy(key) => write!(f, "explicitly denied by {key}"),
            Self::NotAllowed => f.write_str("allow policies exist, but none allowed"),
            Self::UnknownPolicy(key) => write!(f, "denied: policy {key} applies and is not known"),
            Self::UnreadablePolicy(key) => write!(f, "denied: policy {key} applies and could not be read"),
            Self::PoliciesNotReceived => f.write_str("denied: no policies received yet"),
        }
    }
}
