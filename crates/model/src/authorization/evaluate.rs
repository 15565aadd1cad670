//! Whether one policy matches one connection.
//!
//! Invariant: matching allocates nothing. A peer without identity matches no positive condition about
//! identity, and so satisfies every negated one.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Clause, Connection, Match, Policy, Rule, StringMatch};
use crate::{NamespacedName, Spiffe};

impl Policy {
    /// Whether some rule matches.
    pub fn matches(&self, connection: &Connection) -> bool {
        self.rules.iter().any(|rule| rule.matches(connection))
    }
}

impl Rule {
    fn matches(&self, connection: &Connection) -> bool {
        self.clauses.iter().all(|clause| clause.matches(connection))
    }
}

impl Clause {
    /// A clause without alternatives says nothing; one whose alternatives are all empty can never hold.
    fn matches(&self, connection: &Connection) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|m| !m.is_empty() && m.matches(connection))
    }
}

impl Match {
    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        let Self {
            namespaces,
            not_namespaces,
            principals,
            not_principals,
            source_ips,
            not_source_ips,
            destination_ips,
            not_destination_ips,
            destination_ports,
            not_destination_ports,
            service_accounts,
            not_service_accounts,
        } = self;
        namespaces.is_empty()
            && not_namespaces.is_empty()
            && principals.is_empty()
            && not_principals.is_empty()
            && source_ips.is_empty()
            && not_source_ips.is_empty()
            && destination_ips.is_empty()
            && not_destination_ips.is_empty()
            && destination_ports.is_empty()
            && not_destination_ports.is_empty()
            && service_accounts.is_empty()
            && not_service_accounts.is_empty()
    }

    fn matches(&self, connection: &Connection) -> bool {
        let peer = connection.source.as_ref();
        let namespace = |m: &StringMatch| peer.is_some_and(|id| m.matches(&[&id.namespace]));
        let principal = |m: &StringMatch| peer.is_some_and(|id| m.matches(&parts(id)));
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
            && holds(&self.source_ips, &self.not_source_ips, from)
            && holds(&self.destination_ips, &self.not_destination_ips, to)
    }
}

impl StringMatch {
    /// Compares with the concatenation of `parts` without building it.
    fn matches(&self, parts: &[&str]) -> bool {
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

/// One type of condition: some positive value holds (or there is none), and no negated one does.
fn holds<T>(positive: &[T], negated: &[T], test: impl Fn(&T) -> bool) -> bool {
    (positive.is_empty() || positive.iter().any(&test)) && !negated.iter().any(&test)
}

/// The identity as policies spell it: without `spiffe://`.
fn parts(id: &Spiffe) -> [&str; 5] {
    [&id.trust_domain, "/ns/", &id.namespace, "/sa/", &id.service_account]
}

/// IPv4 peers of a dual-stack socket arrive as `::ffff:a.b.c.d` and are meant by IPv4 networks.
fn contains(net: &IpNet, ip: IpAddr) -> bool {
    net.contains(&ip.to_canonical())
}
