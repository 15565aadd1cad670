//! Matching one policy against one connection, or one request on it.
//!
//! Invariant: matching a connection does not allocate. A peer without identity matches no positive
//! condition about identity and therefore satisfies every negated one. A condition that cannot be
//! evaluated counts as met for DENY and AUDIT, and as not met for ALLOW.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Action, Clause, Connection, Match, Policy, Request, Rule, StringMatch};
use crate::{NamespacedName, Spiffe};

mod condition;
mod remote;
mod request;

use condition::holds;

pub(super) use request::Seen;

/// The connection and, at L7, the request being evaluated.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) connection: &'a Connection,
    /// `None` when only the connection is known.
    pub(super) request: Option<&'a Seen<'a>>,
    /// The rule names its peers one by one, so their `X-Forwarded-For` is trusted.
    is_vouched: bool,
}

impl<'a> Subject<'a> {
    pub(super) fn new(connection: &'a Connection, request: Option<&'a Seen<'a>>) -> Self {
        Self { connection, request, is_vouched: false }
    }
}

impl Policy {
    /// Whether any rule matches, given only the connection.
    pub fn matches(&self, connection: &Connection) -> bool {
        self.holds(Subject::new(connection, None))
    }

    /// Whether any rule matches the request.
    pub fn matches_request(&self, connection: &Connection, request: &Request<'_>) -> bool {
        self.holds(Subject::new(connection, Some(&Seen::new(request))))
    }

    pub(super) fn holds(&self, subject: Subject<'_>) -> bool {
        self.rules.iter().any(|rule| rule.holds(self.action, subject))
    }
}

impl Rule {
    fn holds(&self, action: Action, subject: Subject<'_>) -> bool {
        let doubt = match action {
            // Checked for the policy as a whole, so that the result equals that of the L4
            // projection.
            Action::Allow if subject.request.is_none() && self.is_l7() => return false,
            Action::Allow => false,
            Action::Deny | Action::Audit => true,
        };
        let subject = Subject { is_vouched: self.clauses.iter().any(Clause::names_peers), ..subject };
        self.clauses.iter().all(|clause| clause.holds(doubt, subject))
    }
}

impl Clause {
    /// Whether every alternative names peers by service account or exact identity.
    fn names_peers(&self) -> bool {
        let is_name = |m: &StringMatch| matches!(m, StringMatch::Exact(_));
        let names = |m: &Match| {
            !m.service_accounts.is_empty() || (!m.principals.is_empty() && m.principals.iter().all(is_name))
        };
        !self.matches.is_empty() && self.matches.iter().all(names)
    }

    /// A clause without alternatives always holds; a clause whose alternatives are all empty never
    /// does.
    fn holds(&self, doubt: bool, subject: Subject<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|m| !m.is_empty() && m.holds(doubt, subject))
    }
}

impl Match {
    /// Whether the match has no condition at all.
    pub fn is_empty(&self) -> bool {
        let Self {
            namespaces,
            not_namespaces,
            principals,
            not_principals,
            trust_domains,
            not_trust_domains,
            source_ips,
            not_source_ips,
            destination_ips,
            not_destination_ips,
            destination_ports,
            not_destination_ports,
            service_accounts,
            not_service_accounts,
            request: _,
        } = self;
        namespaces.is_empty()
            && not_namespaces.is_empty()
            && principals.is_empty()
            && not_principals.is_empty()
            && trust_domains.is_empty()
            && not_trust_domains.is_empty()
            && source_ips.is_empty()
            && not_source_ips.is_empty()
            && destination_ips.is_empty()
            && not_destination_ips.is_empty()
            && destination_ports.is_empty()
            && not_destination_ports.is_empty()
            && service_accounts.is_empty()
            && not_service_accounts.is_empty()
            && !self.is_l7()
    }

    fn holds(&self, doubt: bool, subject: Subject<'_>) -> bool {
        let connection = subject.connection;
        let peer = connection.source.as_ref();
        let namespace = |m: &StringMatch| peer.is_some_and(|id| m.matches(&[&id.namespace]));
        let principal = |m: &StringMatch| peer.is_some_and(|id| m.matches(&parts(id)));
        let domain = |m: &StringMatch| peer.is_some_and(|id| m.matches(&[&id.trust_domain]));
        let account = |name: &NamespacedName| {
            peer.is_some_and(|id| id.namespace == name.namespace && id.service_account == name.name)
        };
        let from = |net: &IpNet| contains(net, connection.source_ip);
        let to = |net: &IpNet| contains(net, connection.destination_ip);
        let port = |port: &u16| *port == connection.destination_port;

        holds(&self.destination_ports, &self.not_destination_ports, port)
            && holds(&self.namespaces, &self.not_namespaces, namespace)
            && holds(&self.service_accounts, &self.not_service_accounts, account)
            && holds(&self.principals, &self.not_principals, principal)
            && holds(&self.trust_domains, &self.not_trust_domains, domain)
            && holds(&self.source_ips, &self.not_source_ips, from)
            && holds(&self.destination_ips, &self.not_destination_ips, to)
            && match (&self.request, subject.request) {
                (None, _) => true,
                (Some(asked), _) if asked.is_empty() => true,
                (Some(_), None) => doubt,
                (Some(asked), Some(seen)) => asked.holds(doubt, subject.is_vouched, seen),
            }
    }
}

impl StringMatch {
    /// Compares with the concatenation of `parts` without allocating it.
    pub(super) fn matches(&self, parts: &[&str]) -> bool {
        let bytes = || parts.iter().flat_map(|part| part.bytes());
        let length = || parts.iter().map(|part| part.len()).sum::<usize>();
        match self {
            Self::Exact(text) => length() == text.len() && bytes().eq(text.bytes()),
            Self::Prefix(text) => length() >= text.len() && bytes().zip(text.bytes()).all(|(a, b)| a == b),
            Self::Suffix(text) => {
                let from_end = || parts.iter().rev().flat_map(|part| part.bytes().rev());
                length() >= text.len() && from_end().zip(text.bytes().rev()).all(|(a, b)| a == b)
            }
            Self::Presence => length() > 0,
        }
    }
}

/// The identity in the form that policies use: without `spiffe://`.
fn parts(id: &Spiffe) -> [&str; 5] {
    [&id.trust_domain, "/ns/", &id.namespace, "/sa/", &id.service_account]
}

/// IPv4 peers of a dual-stack socket appear as `::ffff:a.b.c.d`; IPv4 networks must match them.
fn contains(net: &IpNet, ip: IpAddr) -> bool {
    net.contains(&ip.to_canonical())
}
