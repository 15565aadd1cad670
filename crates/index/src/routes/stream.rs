//! Translation of TCPRoute and TLSRoute: connections by weight, TLS also by server name.

use ambit_api::gateway::{StreamRouteRule, TcpRoute, TlsRoute};

use super::{BackendFacts, RouteFacts, RouteKind, RuleFacts, http};

/// Parses a TCPRoute.
pub(crate) fn read_tcp(route: &TcpRoute) -> RouteFacts {
    let facts =
        RouteFacts::new(RouteKind::Tcp, &route.metadata, &route.spec.parent_refs, route.status.as_ref());
    with_rules(facts, &route.spec.rules)
}

/// Parses a TLSRoute.
pub(crate) fn read_tls(route: &TlsRoute) -> RouteFacts {
    let mut facts =
        RouteFacts::new(RouteKind::Tls, &route.metadata, &route.spec.parent_refs, route.status.as_ref());
    facts.names = route.spec.hostnames.iter().map(|name| name.to_ascii_lowercase().into()).collect();
    with_rules(facts, &route.spec.rules)
}

fn with_rules(mut facts: RouteFacts, rules: &[StreamRouteRule]) -> RouteFacts {
    let rule = |(at, rule): (usize, &StreamRouteRule)| RuleFacts {
        name: facts.rule_name(rule.name.as_deref(), at),
        backends: rule
            .backend_refs
            .iter()
            .map(|reference| BackendFacts {
                weight: http::weight(reference.weight),
                reference: reference.clone(),
                filters: Vec::new(),
            })
            .collect(),
        ..RuleFacts::default()
    };
    facts.rules = rules.iter().enumerate().map(rule).collect();
    facts
}
