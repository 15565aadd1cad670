//! Conflicts between routes: which ones apply to a port of a Service.
//!
//! Invariant: HTTPRoutes and GRPCRoutes are not mixed on a port; the kind of the oldest route wins.
//! Of several connection routes for the same server name, or for all names, the oldest wins.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
};

use ambit_model::{AppProtocol, bound::HttpMatch};

use super::{Parent, RouteFacts, RouteKind, RuleFacts};
use crate::services::{PortFacts, ServiceFacts};

/// The routes of a port for one audience, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attached<'a> {
    /// Request routes, all of one kind.
    pub(crate) http: Vec<&'a RouteFacts>,
    /// Connection routes; each has a server name that no earlier one has.
    pub(crate) stream: Vec<&'a RouteFacts>,
    /// The owner of the Service rejects routes of this audience.
    pub(crate) is_denied: bool,
    /// For each match, the index in `http` of the first route that has it; computed on demand.
    firsts: OnceCell<HashMap<&'a HttpMatch, usize>>,
}

/// Why a parent reference matches no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// The Service does not have this port.
    NoSuchPort,
    /// The referenced ports use another protocol.
    Protocol,
}

/// The ports of a Service that a parent reference selects and a kind of route supports.
pub(crate) fn ports<'a>(
    kind: RouteKind,
    parent: &Parent,
    service: &'a ServiceFacts,
) -> Result<Vec<&'a PortFacts>, Misfit> {
    let reference = &parent.reference;
    let is_meant = |port: &&PortFacts| {
        reference.port.is_none_or(|number| number == i32::from(port.port))
            && reference.section_name.as_deref().is_none_or(|name| name == port.name)
    };
    let meant: Vec<&PortFacts> = service.ports.iter().filter(is_meant).collect();
    if meant.is_empty() {
        return Err(Misfit::NoSuchPort);
    }
    let served: Vec<&PortFacts> = meant.into_iter().filter(|port| serves(kind, port.protocol)).collect();
    if served.is_empty() { Err(Misfit::Protocol) } else { Ok(served) }
}

/// Whether a kind of route supports the protocol of a port.
fn serves(kind: RouteKind, protocol: AppProtocol) -> bool {
    match protocol {
        AppProtocol::Detect => true,
        AppProtocol::Http | AppProtocol::Http2 => kind.is_http(),
        AppProtocol::Tcp | AppProtocol::Tls => !kind.is_http(),
    }
}

/// Resolves conflicts between the routes that one audience has for a port.
pub(crate) fn contest<'a>(
    routes: impl IntoIterator<Item = &'a RouteFacts>,
    service: &ServiceFacts,
    port: &PortFacts,
) -> Attached<'a> {
    let wants = |route: &&RouteFacts| {
        route.parents.iter().filter(|parent| parent.service == service.name).any(|parent| {
            ports(route.key.kind, parent, service)
                .is_ok_and(|ports| ports.iter().any(|known| known.port == port.port))
        })
    };
    let mut all: Vec<&RouteFacts> = routes.into_iter().filter(wants).collect();
    all.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
    let (http, stream): (Vec<_>, Vec<_>) = all.into_iter().partition(|route| route.key.kind.is_http());
    let kind = http.first().map(|route| route.key.kind);
    Attached {
        http: http.into_iter().filter(|route| Some(route.key.kind) == kind).collect(),
        stream: first_of_each_name(&stream),
        is_denied: false,
        firsts: OnceCell::new(),
    }
}

/// Connection routes that have a server name to themselves; `routes` are sorted by age.
fn first_of_each_name<'a>(routes: &[&'a RouteFacts]) -> Vec<&'a RouteFacts> {
    let mut taken = HashSet::new();
    let mut takes = |route: &RouteFacts| match route.names.as_slice() {
        [] => taken.insert(None),
        // `count` visits all names, so that every one is marked as taken.
        names => names.iter().filter(|name| taken.insert(Some((*name).clone()))).count() > 0,
    };
    routes.iter().copied().filter(|route| takes(route)).collect()
}

fn shares_name(one: &RouteFacts, other: &RouteFacts) -> bool {
    let both_take_all = one.names.is_empty() && other.names.is_empty();
    both_take_all || one.names.iter().any(|name| other.names.contains(name))
}

impl<'a> Attached<'a> {
    /// For an audience whose routes the owner of the Service rejects.
    pub(crate) fn denied() -> Self {
        Self { is_denied: true, ..Self::default() }
    }

    /// The route that has the port instead of `route`; `None` if `route` has it itself.
    pub(crate) fn winner(&self, route: &RouteFacts) -> Option<&'a RouteFacts> {
        let holds = if route.key.kind.is_http() { self.http.as_slice() } else { self.stream.as_slice() };
        let is_among = holds.iter().any(|holder| holder.key == route.key);
        let takes_its_name = |holder: &&&RouteFacts| route.key.kind.is_http() || shares_name(holder, route);
        if is_among { None } else { holds.iter().find(takes_its_name).copied() }
    }

    /// The rules of `route` that are hidden by an older route with the same match, each with that
    /// route.
    pub(crate) fn outranked(&self, route: &RouteFacts) -> Vec<String> {
        let firsts = self.firsts.get_or_init(|| {
            let mut firsts = HashMap::new();
            for (at, route) in self.http.iter().enumerate() {
                for (_, matched) in route.rules.iter().flat_map(|rule| &rule.matches) {
                    firsts.entry(matched).or_insert(at);
                }
            }
            firsts
        });
        let taken = |rule: &RuleFacts| {
            let holders = rule.matches.iter().filter_map(|(_, matched)| {
                let at = *firsts.get(matched)?;
                Some((at, *self.http.get(at)?))
            });
            let others = holders.filter(|(_, holder)| holder.key != route.key);
            others.min_by_key(|(at, _)| *at).map(|(_, holder)| holder)
        };
        let rules = route.rules.iter().enumerate();
        rules
            .filter_map(|(at, rule)| {
                Some(format!("spec.rules[{at}] has a match of the older {}", taken(rule)?.key))
            })
            .collect()
    }
}
