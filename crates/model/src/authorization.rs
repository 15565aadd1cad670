//! What an authorization policy is, and how it decides about a connection or a request.
//!
//! Invariant: evaluation is total and fails closed; a policy that is referenced but unknown denies, and the L4
//! projection of a policy never allows what the whole policy refuses.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

mod evaluate;
mod path;
mod policy_set;
mod projection;
mod request;
mod server_name;
#[cfg(test)]
mod tests;

pub use path::{
    InvalidPathPattern, PathPattern, PathTemplate,
    readings::{UnreadablePath, normalize_path},
};
pub use policy_set::{Applied, PolicySet};
pub use request::{Attribute, AttributeMatch, Headers, Request, RequestMatch, Token};

use crate::{NamespacedName, Spiffe};

/// Where a policy applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every workload.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// The workloads that name it.
    WorkloadSelector,
}

/// What a match does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Only what matches some ALLOW policy passes.
    Allow,
    /// What matches is refused, whatever else allows it.
    Deny,
    /// What matches is noted; it decides nothing.
    Audit,
}

/// A string to compare with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Starts with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Not empty.
    Presence,
}

/// One alternative: every field that is not empty must match; values of a field are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Namespace of the peer's identity.
    pub namespaces: Vec<StringMatch>,
    /// Not this namespace.
    pub not_namespaces: Vec<StringMatch>,
    /// Peer identity without `spiffe://`.
    pub principals: Vec<StringMatch>,
    /// Not this identity.
    pub not_principals: Vec<StringMatch>,
    /// Trust domain of the peer's identity.
    pub trust_domains: Vec<StringMatch>,
    /// Not this trust domain.
    pub not_trust_domains: Vec<StringMatch>,
    /// Peer address.
    pub source_ips: Vec<IpNet>,
    /// Not this peer address.
    pub not_source_ips: Vec<IpNet>,
    /// Address on the workload.
    pub destination_ips: Vec<IpNet>,
    /// Not this address.
    pub not_destination_ips: Vec<IpNet>,
    /// Port on the workload (the target port, never 15008).
    pub destination_ports: Vec<u16>,
    /// Not this port.
    pub not_destination_ports: Vec<u16>,
    /// `(namespace, service account)` of the peer, whatever its trust domain.
    pub service_accounts: Vec<NamespacedName>,
    /// Not this service account.
    pub not_service_accounts: Vec<NamespacedName>,
    /// What only a request can be asked (L7); boxed, because most matches have none.
    pub request: Option<Box<RequestMatch>>,
}

/// Alternatives, one of which must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// Alternatives.
    pub matches: Vec<Match>,
}

/// Clauses, all of which must match; no clause matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Clauses.
    pub clauses: Vec<Clause>,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `namespace/name`, the xDS resource name.
    pub key: NamespacedName,
    /// Where it applies.
    pub scope: Scope,
    /// What a match does.
    pub action: Action,
    /// Alternatives; no rule never matches.
    pub rules: Vec<Rule>,
    /// Judge and log, do not enforce.
    pub dry_run: bool,
}

/// The connection to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Identity proven by mTLS; none for plaintext.
    pub source: Option<Spiffe>,
    /// Address of the client.
    pub source_ip: IpAddr,
    /// Address on the workload.
    pub destination_ip: IpAddr,
    /// Port on the workload.
    pub destination_port: u16,
}

/// The judgement, with the policy that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No policy applies.
    AllowedByDefault,
    /// An ALLOW policy matched.
    AllowedBy(NamespacedName),
    /// A DENY policy matched.
    DeniedBy(NamespacedName),
    /// ALLOW policies apply and none matched.
    NotAllowed,
    /// The workload names a policy that is not known here.
    UnknownPolicy(NamespacedName),
    /// A policy applies that could not be read, so nobody knows what it denies.
    UnreadablePolicy(NamespacedName),
    /// No policies have been received yet.
    PoliciesNotReceived,
}

impl Verdict {
    /// Whether the connection may proceed.
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

    /// The policy that decided, if one did.
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
            Self::UnknownPolicy(key) => write!(f, "denied: policy {key} applies and is not known here"),
            Self::UnreadablePolicy(key) => write!(f, "denied: policy {key} applies and could not be read"),
            Self::PoliciesNotReceived => f.write_str("denied: no policies received yet"),
        }
    }
}
