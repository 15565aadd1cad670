//! Filters of rules and backends.

use std::{sync::Arc, time::Duration};

use ambit_api::gateway::{
    Header, HttpCors, HttpFilter, HttpHeaderFilter, HttpPathModifier, HttpRequestMirror, HttpRequestRedirect,
    HttpUrlRewrite,
};
use ambit_model::bound::{Cors, Filter, Fraction, HeaderChange, PathChange, Redirect, Rewrite};

use super::FilterFacts;

/// Filters supported in an HTTPRoute.
pub(super) const HTTP: &[&str] = &[
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestRedirect",
    "URLRewrite",
    "RequestMirror",
    "CORS",
];
/// Filters supported in a GRPCRoute.
pub(super) const GRPC: &[&str] = &["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"];
/// Default status of a redirect.
const REDIRECT_STATUS: u16 = 302;
/// Default lifetime of a preflight response in seconds.
const CORS_MAX_AGE_SECONDS: i32 = 5;

/// Parses filters; one that is not in `known`, or lacks its configuration, is a problem of the
/// whole rule.
pub(super) fn read(filters: &[HttpFilter], known: &[&str], problems: &mut Vec<String>) -> Vec<FilterFacts> {
    let mut found = Vec::with_capacity(filters.len());
    for filter in filters {
        let kind = filter.kind.as_str();
        match known.contains(&kind).then(|| content(filter)) {
            Some(Ok(facts)) => found.push(facts),
            Some(Err(why)) => problems.push(format!("filter {kind}: {why}")),
            None => problems.push(format!("filter type {kind:?} is not supported")),
        }
    }
    found
}

fn content(filter: &HttpFilter) -> Result<FilterFacts, String> {
    let nothing = || "its configuration is missing".to_owned();
    let ready = match filter.kind.as_str() {
        "RequestHeaderModifier" => {
            Filter::RequestHeaders(headers(filter.request_header_modifier.as_ref().ok_or_else(nothing)?))
        }
        "ResponseHeaderModifier" => {
            Filter::ResponseHeaders(headers(filter.response_header_modifier.as_ref().ok_or_else(nothing)?))
        }
        "RequestRedirect" => {
            Filter::Redirect(redirect(filter.request_redirect.as_ref().ok_or_else(nothing)?)?)
        }
        "URLRewrite" => Filter::Rewrite(rewrite(filter.url_rewrite.as_ref().ok_or_else(nothing)?)?),
        "CORS" => Filter::Cors(cors(filter.cors.as_ref().ok_or_else(nothing)?)),
        _ => return mirror(filter.request_mirror.as_ref().ok_or_else(nothing)?),
    };
    Ok(FilterFacts::Ready(ready))
}

fn headers(change: &HttpHeaderFilter) -> HeaderChange {
    let pair = |header: &Header| (header.name.to_ascii_lowercase().into(), header.value.as_str().into());
    HeaderChange {
        set: change.set.iter().map(pair).collect(),
        add: change.add.iter().map(pair).collect(),
        remove: change.remove.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
    }
}

fn redirect(redirect: &HttpRequestRedirect) -> Result<Redirect, String> {
    let port =
        redirect.port.map(u16::try_from).transpose().map_err(|_| "port is not a valid port".to_owned())?;
    let status = redirect.status_code.map_or(Ok(REDIRECT_STATUS), u16::try_from);
    let status = status.ok().filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
    Ok(Redirect {
        scheme: redirect.scheme.as_deref().map(Arc::from),
        hostname: redirect.hostname.as_deref().map(Arc::from),
        path: redirect.path.as_ref().map(path).transpose()?,
        port,
        status: status.ok_or_else(|| "statusCode is not one of 301, 302, 303, 307, 308".to_owned())?,
        // Set when the route is compiled, because it depends on the waypoint.
        trusts_forwarded_proto: false,
    })
}

fn rewrite(rewrite: &HttpUrlRewrite) -> Result<Rewrite, String> {
    Ok(Rewrite {
        hostname: rewrite.hostname.as_deref().map(Arc::from),
        path: rewrite.path.as_ref().map(path).transpose()?,
    })
}

fn path(change: &HttpPathModifier) -> Result<PathChange, String> {
    match (change.kind.as_str(), &change.replace_full_path, &change.replace_prefix_match) {
        ("ReplaceFullPath", Some(path), _) => Ok(PathChange::Full(path.as_str().into())),
        ("ReplacePrefixMatch", _, Some(prefix)) => Ok(PathChange::Prefix(prefix.as_str().into())),
        (kind, _, _) => Err(format!("path modifier {kind:?} is not supported or lacks its value")),
    }
}

fn mirror(mirror: &HttpRequestMirror) -> Result<FilterFacts, String> {
    let of = |numerator: i32, denominator: i32| match (u32::try_from(numerator), u32::try_from(denominator)) {
        (Ok(numerator), Ok(denominator)) if denominator > 0 && numerator <= denominator => {
            Ok(Fraction { numerator, denominator })
        }
        _ => Err(format!("{numerator} of {denominator} is not a valid fraction")),
    };
    let fraction = match (&mirror.fraction, mirror.percent) {
        (Some(fraction), _) => Some(of(fraction.numerator, fraction.denominator.unwrap_or(100))?),
        (None, Some(percent)) => Some(of(percent, 100)?),
        (None, None) => None,
    };
    Ok(FilterFacts::Mirror { to: mirror.backend_ref.clone(), fraction })
}

fn cors(cors: &HttpCors) -> Cors {
    let all = |values: &[String]| values.iter().map(|value| value.as_str().into()).collect();
    let seconds = u64::try_from(cors.max_age.unwrap_or(CORS_MAX_AGE_SECONDS)).unwrap_or_default();
    Cors {
        allow_origins: all(&cors.allow_origins),
        allow_credentials: cors.allow_credentials.unwrap_or_default(),
        allow_methods: all(&cors.allow_methods),
        allow_headers: all(&cors.allow_headers),
        expose_headers: all(&cors.expose_headers),
        max_age: Duration::from_secs(seconds),
    }
}
