//! Translation of HTTPRoute.

use std::{sync::Arc, time::Duration};

use ambit_api::{
    gateway::{self as api, HttpRoute},
    parse_duration,
};
use ambit_model::{
    NamespacedName,
    bound::{
        HeaderMatch, HttpMatch, PathMatch, QueryMatch, RequestTimeouts, Retry, SessionCookie,
        SessionLifetime, SessionPersistence, ValueMatch,
    },
};

use super::{BackendFacts, Rank, RouteFacts, RouteKind, RuleFacts, filters, table};

/// Default number of retries of a rule with a retry policy.
const RETRY_ATTEMPTS_DEFAULT: u32 = 1;
/// Largest number of retries of a rule.
const RETRY_ATTEMPTS_MAX: u32 = 25;
/// Default name of the session cookie or header.
const SESSION_NAME: &str = "ambit-session";

/// Parses an object.
pub(crate) fn read(route: &HttpRoute) -> RouteFacts {
    let mut facts =
        RouteFacts::new(RouteKind::Http, &route.metadata, &route.spec.parent_refs, route.status.as_ref());
    facts.rules = route.spec.rules.iter().enumerate().map(|(at, rule)| read_rule(&facts, at, rule)).collect();
    facts.rules.iter_mut().for_each(table::check);
    facts
}

fn read_rule(route: &RouteFacts, at: usize, rule: &api::HttpRouteRule) -> RuleFacts {
    let mut problems = Vec::new();
    let every = [api::HttpMatch::default()];
    let matches = if rule.matches.is_empty() { &every[..] } else { &rule.matches };
    RuleFacts {
        name: route.rule_name(rule.name.as_deref(), at),
        matches: matches.iter().map(|matched| read_match(matched, &mut problems)).collect(),
        filters: filters::read(&rule.filters, filters::HTTP, &mut problems),
        backends: rule.backend_refs.iter().map(|b| read_backend(b, &mut problems)).collect(),
        timeouts: rule.timeouts.as_ref().map(|t| timeouts(t, &mut problems)).unwrap_or_default(),
        retry: rule.retry.as_ref().map(|retry| read_retry(retry, &mut problems)),
        session: rule.session_persistence.as_ref().map(|s| session(s, &route.key.name, &mut problems)),
        problem: problems.into_iter().next().map(Arc::from),
    }
}

fn read_match(matched: &api::HttpMatch, problems: &mut Vec<String>) -> (Rank, HttpMatch) {
    let compiled = HttpMatch {
        path: path(matched.path.as_ref(), problems),
        method: matched.method.as_deref().map(Arc::from),
        headers: headers(&matched.headers, problems),
        query: query(&matched.query_params, problems),
    };
    (Rank::of_http(&compiled), compiled)
}

fn path(path: Option<&api::HttpPathMatch>, problems: &mut Vec<String>) -> PathMatch {
    let value = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    match path.and_then(|path| path.kind.as_deref()) {
        Some("Exact") => PathMatch::Exact(value.into()),
        None | Some("PathPrefix") => PathMatch::Prefix(value.trim_end_matches('/').into()),
        Some("RegularExpression") => PathMatch::Regex(value.into()),
        Some(other) => {
            problems.push(format!("path match type {other:?} is not supported"));
            PathMatch::default()
        }
    }
}

/// The first of several entries with the same name counts.
pub(super) fn headers(matches: &[api::HttpValueMatch], problems: &mut Vec<String>) -> Vec<HeaderMatch> {
    let mut found: Vec<HeaderMatch> = Vec::new();
    for matched in matches {
        let name: Arc<str> = matched.name.to_ascii_lowercase().into();
        if !found.iter().any(|known| known.name == name) {
            found.push(HeaderMatch { name, value: value(matched, "header", problems) });
        }
    }
    found
}

fn query(matches: &[api::HttpValueMatch], problems: &mut Vec<String>) -> Vec<QueryMatch> {
    let mut found: Vec<QueryMatch> = Vec::new();
    for matched in matches {
        let name: Arc<str> = matched.name.as_str().into();
        if !found.iter().any(|known| known.name == name) {
            found.push(QueryMatch { name, value: value(matched, "query parameter", problems) });
        }
    }
    found
}

fn value(matched: &api::HttpValueMatch, what: &str, problems: &mut Vec<String>) -> ValueMatch {
    match matched.kind.as_deref() {
        None | Some("Exact") => ValueMatch::Exact(matched.value.as_str().into()),
        Some("RegularExpression") => ValueMatch::Regex(matched.value.as_str().into()),
        Some(other) => {
            problems.push(format!("{what} match type {other:?} is not supported"));
            ValueMatch::Exact(matched.value.as_str().into())
        }
    }
}

fn read_backend(backend: &api::HttpBackendReference, problems: &mut Vec<String>) -> BackendFacts {
    BackendFacts {
        weight: weight(backend.backend.weight),
        filters: filters::read(&backend.filters, filters::HTTP, problems),
        reference: backend.backend.clone(),
    }
}

/// The default is 1; the API server rejects negative weights.
pub(super) fn weight(weight: Option<i32>) -> u32 {
    u32::try_from(weight.unwrap_or(1)).unwrap_or(0)
}

/// `0s` means no limit (GEP-1742).
fn timeouts(timeouts: &api::HttpTimeouts, problems: &mut Vec<String>) -> RequestTimeouts {
    let mut limit = |name: &str, text: Option<&str>| {
        duration(name, text, problems).filter(|duration| !duration.is_zero())
    };
    RequestTimeouts {
        request: limit("timeouts.request", timeouts.request.as_deref()),
        backend: limit("timeouts.backendRequest", timeouts.backend_request.as_deref()),
    }
}

fn read_retry(retry: &api::HttpRetry, problems: &mut Vec<String>) -> Retry {
    let attempts = retry.attempts.map_or(Ok(RETRY_ATTEMPTS_DEFAULT), u32::try_from);
    let attempts = attempts.ok().filter(|attempts| *attempts <= RETRY_ATTEMPTS_MAX);
    if attempts.is_none() {
        problems.push(format!("retry.attempts is not between 0 and {RETRY_ATTEMPTS_MAX}"));
    }
    Retry {
        codes: retry.codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect(),
        attempts: attempts.unwrap_or_default(),
        backoff: duration("retry.backoff", retry.backoff.as_deref(), problems),
    }
}

pub(super) fn session(
    session: &api::SessionPersistence,
    route: &NamespacedName,
    problems: &mut Vec<String>,
) -> SessionPersistence {
    let absolute_timeout = duration("absoluteTimeout", session.absolute_timeout.as_deref(), problems);
    let lifetime = session.cookie_config.as_ref().and_then(|cookie| cookie.lifetime_type.as_deref());
    let lifetime = match lifetime {
        None | Some("Session") => SessionLifetime::Session,
        Some("Permanent") => SessionLifetime::Permanent,
        Some(other) => {
            problems.push(format!("cookie lifetime {other:?} is not supported"));
            SessionLifetime::Session
        }
    };
    if lifetime == SessionLifetime::Permanent && absolute_timeout.is_none() {
        problems.push("a permanent cookie needs absoluteTimeout".into());
    }
    let cookie = match session.kind.as_deref() {
        None | Some("Cookie") => Some(SessionCookie { lifetime }),
        Some("Header") => None,
        Some(other) => {
            problems.push(format!("session persistence type {other:?} is not supported"));
            None
        }
    };
    let name = session.session_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(SESSION_NAME);
    SessionPersistence {
        name: if cookie.is_some() { name.into() } else { name.to_ascii_lowercase().into() },
        cookie,
        absolute_timeout,
        idle_timeout: duration("idleTimeout", session.idle_timeout.as_deref(), problems),
        route: route.clone(),
    }
}

fn duration(name: &str, text: Option<&str>, problems: &mut Vec<String>) -> Option<Duration> {
    match parse_duration(text?) {
        Ok(duration) => Some(duration),
        Err(error) => {
            problems.push(format!("{name}: {error}"));
            None
        }
    }
}
