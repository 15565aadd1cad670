//! Translation of GRPCRoute: a call is a request for `/<service>/<method>`.

use std::sync::Arc;

use ambit_api::gateway::{self as api, GrpcRoute};
use ambit_model::bound::{HttpMatch, PathMatch, RequestTimeouts};

use super::{BackendFacts, Rank, RouteFacts, RouteKind, RuleFacts, filters, http, table};

/// Expression for any service or method.
const ANY: &str = "[^/]+";

/// Parses an object.
pub(crate) fn read(route: &GrpcRoute) -> RouteFacts {
    let mut facts =
        RouteFacts::new(RouteKind::Grpc, &route.metadata, &route.spec.parent_refs, route.status.as_ref());
    facts.rules = route.spec.rules.iter().enumerate().map(|(at, rule)| read_rule(&facts, at, rule)).collect();
    facts.rules.iter_mut().for_each(table::check);
    facts
}

fn read_rule(route: &RouteFacts, at: usize, rule: &api::GrpcRouteRule) -> RuleFacts {
    let mut problems = Vec::new();
    let every = [api::GrpcMatch::default()];
    let matches = if rule.matches.is_empty() { &every[..] } else { &rule.matches };
    RuleFacts {
        name: route.rule_name(rule.name.as_deref(), at),
        matches: matches.iter().map(|matched| read_match(matched, &mut problems)).collect(),
        filters: filters::read(&rule.filters, filters::GRPC, &mut problems),
        backends: rule.backend_refs.iter().map(|b| read_backend(b, &mut problems)).collect(),
        timeouts: RequestTimeouts::default(),
        retry: None,
        session: rule.session_persistence.as_ref().map(|s| http::session(s, &route.key.name, &mut problems)),
        problem: problems.into_iter().next().map(Arc::from),
    }
}

fn read_match(matched: &api::GrpcMatch, problems: &mut Vec<String>) -> (Rank, HttpMatch) {
    let headers = http::headers(&matched.headers, problems);
    let method = matched.method.as_ref();
    let service_name = method.and_then(|m| m.service.as_deref()).filter(|name| !name.is_empty());
    let method_name = method.and_then(|m| m.method.as_deref()).filter(|name| !name.is_empty());
    let length = |name: Option<&str>| name.map_or(0, str::len);
    let rank = Rank::of_grpc(length(service_name), length(method_name), headers.len());
    let path = match method.and_then(|method| method.kind.as_deref()) {
        None | Some("Exact") => exact(service_name, method_name, problems),
        Some("RegularExpression") => expression(service_name, method_name, problems),
        Some(other) => {
            problems.push(format!("method match type {other:?} is not supported"));
            PathMatch::default()
        }
    };
    (rank, HttpMatch { path, headers, ..HttpMatch::default() })
}

fn exact(service: Option<&str>, method: Option<&str>, problems: &mut Vec<String>) -> PathMatch {
    match (service, method) {
        (None, None) => PathMatch::default(),
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
        (Some(service), None) => PathMatch::Prefix(format!("/{service}").into()),
        (None, Some(method)) => {
            if !method.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                problems.push(format!("{method:?} is not the name of a gRPC method"));
            }
            PathMatch::Regex(format!("/{ANY}/{method}").into())
        }
    }
}

/// Validates each part as an expression of its own: together they could hide an unbalanced
/// parenthesis.
fn expression(service: Option<&str>, method: Option<&str>, problems: &mut Vec<String>) -> PathMatch {
    for part in [service, method].into_iter().flatten() {
        if let Some(wrong) = table::expression_problem(part) {
            problems.push(wrong);
        }
    }
    let part = |part: Option<&str>| part.unwrap_or(ANY).to_owned();
    PathMatch::Regex(format!("/(?:{})/(?:{})", part(service), part(method)).into())
}

fn read_backend(backend: &api::GrpcBackendReference, problems: &mut Vec<String>) -> BackendFacts {
    BackendFacts {
        weight: http::weight(backend.backend.weight),
        filters: filters::read(&backend.filters, filters::GRPC, problems),
        reference: backend.backend.clone(),
    }
}
