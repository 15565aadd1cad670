//! Encoding of `ambit.waypoint.v1.Routes`.
//!
//! Invariant: every match of a decoded table references one of its rules.

mod filter;

use std::sync::Arc;

use ambit_model::bound::{
    Backend, HttpMatch, HttpRule, HttpTable, NamedStream, RequestTimeouts, Retry, Routes, SessionCookie,
    SessionLifetime, SessionPersistence, WeightedBackend,
};
use ambit_proto::waypoint as wire;

use super::{
    destination::{decode_destination, decode_name, encode_destination, encode_name},
    matching::{decode_match, encode_match},
    traffic,
};
use crate::field::{self, Invalid, list};

pub(super) fn encode_routes(routes: &Routes) -> wire::Routes {
    let backends =
        |backends: &Vec<WeightedBackend>| wire::StreamRoute { backends: encode_backends(backends) };
    wire::Routes {
        http: routes.http.as_deref().map(encode_table),
        stream: routes.stream.as_ref().map(backends),
        named: routes.named.iter().map(encode_named).collect(),
    }
}

fn encode_named(stream: &NamedStream) -> wire::NamedStream {
    wire::NamedStream {
        names: stream.names.iter().map(ToString::to_string).collect(),
        backends: encode_backends(&stream.backends),
    }
}

fn decode_named(message: wire::NamedStream) -> Result<NamedStream, Invalid> {
    if message.names.is_empty() {
        return Err(Invalid::new("named.names", "there is none"));
    }
    Ok(NamedStream {
        names: list(message.names, |name| field::required("named.names", name))?,
        backends: list(message.backends, decode_backend)?,
    })
}

pub(super) fn decode_routes(message: wire::Routes) -> Result<Routes, Invalid> {
    let stream = message.stream.map(|stream| list(stream.backends, decode_backend));
    Ok(Routes {
        http: message.http.map(|table| decode_table(table).map(Arc::new)).transpose()?,
        stream: stream.transpose()?,
        named: list(message.named, decode_named)?,
    })
}

fn encode_table(table: &HttpTable) -> wire::HttpTable {
    let ranked = |(found, rule): &(HttpMatch, usize)| wire::RankedMatch {
        r#match: Some(encode_match(found)),
        // Tables are never that long; decoding would reject the index.
        rule: u32::try_from(*rule).unwrap_or(u32::MAX),
    };
    wire::HttpTable {
        matches: table.matches.iter().map(ranked).collect(),
        rules: table.rules.iter().map(encode_rule).collect(),
    }
}

fn decode_table(message: wire::HttpTable) -> Result<HttpTable, Invalid> {
    let rules = list(message.rules, decode_rule)?;
    let ranked = |ranked: wire::RankedMatch| {
        let rule = usize::try_from(ranked.rule).ok().filter(|rule| *rule < rules.len());
        let missing = || Invalid::new("matches.rule", format!("there is no rule {}", ranked.rule));
        let rule = rule.ok_or_else(missing)?;
        Ok((decode_match(field::present("matches.match", ranked.r#match)?)?, rule))
    };
    Ok(HttpTable { matches: list(message.matches, ranked)?, rules })
}

fn encode_rule(rule: &HttpRule) -> wire::HttpRule {
    let retry = |retry: &Retry| wire::Retry {
        codes: retry.codes.iter().map(|code| u32::from(*code)).collect(),
        attempts: retry.attempts,
        backoff_ms: retry.backoff.map(field::millis),
    };
    wire::HttpRule {
        name: rule.name.to_string(),
        filters: rule.filters.iter().map(filter::encode_filter).collect(),
        backends: encode_backends(&rule.backends),
        request_timeout_ms: rule.timeouts.request.map(field::millis),
        backend_timeout_ms: rule.timeouts.backend.map(field::millis),
        retry: rule.retry.as_ref().map(retry),
        session: rule.session.as_ref().map(encode_session),
        requests: rule.requests.as_deref().map(traffic::encode_requests),
        is_consumer: rule.is_consumer,
    }
}

fn decode_rule(message: wire::HttpRule) -> Result<HttpRule, Invalid> {
    let retry = |retry: wire::Retry| {
        Ok(Retry {
            codes: list(retry.codes, |code| field::status("retry.codes", code))?,
            attempts: retry.attempts,
            backoff: field::optional_duration("retry.backoff_ms", retry.backoff_ms)?,
        })
    };
    let requests = message.requests.map(|requests| traffic::decode_requests(requests).map(Arc::new));
    Ok(HttpRule {
        name: message.name.into(),
        filters: list(message.filters, filter::decode_filter)?,
        backends: list(message.backends, decode_backend)?,
        timeouts: RequestTimeouts {
            request: field::optional_duration("request_timeout_ms", message.request_timeout_ms)?,
            backend: field::optional_duration("backend_timeout_ms", message.backend_timeout_ms)?,
        },
        retry: message.retry.map(retry).transpose()?,
        session: message.session.map(decode_session).transpose()?,
        requests: requests.transpose()?,
        is_consumer: message.is_consumer,
    })
}

fn encode_backends(backends: &[WeightedBackend]) -> Vec<wire::WeightedBackend> {
    use wire::weighted_backend::Backend as Wire;
    let one = |backend: &WeightedBackend| wire::WeightedBackend {
        weight: backend.weight,
        backend: Some(match &backend.backend {
            Backend::Service(destination) => Wire::Service(encode_destination(destination)),
            Backend::Invalid(reason) => Wire::Invalid(reason.to_string()),
        }),
        filters: backend.filters.iter().map(filter::encode_filter).collect(),
    };
    backends.iter().map(one).collect()
}

fn decode_backend(message: wire::WeightedBackend) -> Result<WeightedBackend, Invalid> {
    use wire::weighted_backend::Backend as Wire;
    Ok(WeightedBackend {
        weight: message.weight,
        backend: match field::present("backends.backend", message.backend)? {
            Wire::Service(destination) => {
                Backend::Service(decode_destination("backends.service", destination)?)
            }
            Wire::Invalid(reason) => Backend::Invalid(reason.into()),
        },
        filters: list(message.filters, filter::decode_filter)?,
    })
}

fn encode_session(session: &SessionPersistence) -> wire::SessionPersistence {
    use wire::session_cookie::Lifetime;
    let cookie = |cookie: SessionCookie| wire::SessionCookie {
        lifetime: match cookie.lifetime {
            SessionLifetime::Session => Lifetime::Session,
            SessionLifetime::Permanent => Lifetime::Permanent,
        }
        .into(),
    };
    wire::SessionPersistence {
        name: session.name.to_string(),
        cookie: session.cookie.map(cookie),
        absolute_timeout_ms: session.absolute_timeout.map(field::millis),
        idle_timeout_ms: session.idle_timeout.map(field::millis),
        route: Some(encode_name(&session.route)),
    }
}

fn decode_session(message: wire::SessionPersistence) -> Result<SessionPersistence, Invalid> {
    use wire::session_cookie::Lifetime;
    let cookie = |cookie: wire::SessionCookie| {
        Ok(SessionCookie {
            lifetime: match field::enumeration("session.cookie", cookie.lifetime)? {
                Lifetime::Session => SessionLifetime::Session,
                Lifetime::Permanent => SessionLifetime::Permanent,
            },
        })
    };
    Ok(SessionPersistence {
        name: field::required("session.name", message.name)?,
        cookie: message.cookie.map(cookie).transpose()?,
        absolute_timeout: field::optional_duration(
            "session.absolute_timeout_ms",
            message.absolute_timeout_ms,
        )?,
        idle_timeout: field::optional_duration("session.idle_timeout_ms", message.idle_timeout_ms)?,
        route: decode_name("session.route", message.route)?,
    })
}
