//! Encoding of `ambit.waypoint.v1.Filter`.
//!
//! Invariant: an unknown filter rejects the service, so that a request that should be changed never
//! passes unchanged.

use std::sync::Arc;

use ambit_model::bound::{Cors, Filter, HeaderChange, Mirror, PathChange, Redirect, Rewrite};
use ambit_proto::waypoint as wire;
use wire::filter::Kind;

use super::super::{
    destination::{decode_destination, encode_destination},
    matching::{decode_fraction, encode_fraction},
};
use crate::field::{self, Invalid, list, text, texts};

/// Redirect status codes permitted by the Gateway API.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

pub(super) fn encode_filter(filter: &Filter) -> wire::Filter {
    let kind = match filter {
        Filter::RequestHeaders(change) => Kind::RequestHeaders(encode_change(change)),
        Filter::ResponseHeaders(change) => Kind::ResponseHeaders(encode_change(change)),
        Filter::Redirect(redirect) => Kind::Redirect(encode_redirect(redirect)),
        Filter::Rewrite(rewrite) => Kind::Rewrite(wire::Rewrite {
            hostname: text(rewrite.hostname.as_ref()),
            path: rewrite.path.as_ref().map(encode_path),
        }),
        Filter::Mirror(mirror) => Kind::Mirror(wire::Mirror {
            to: Some(encode_destination(&mirror.to)),
            fraction: mirror.fraction.map(encode_fraction),
        }),
        Filter::Cors(cors) => Kind::Cors(encode_cors(cors)),
    };
    wire::Filter { kind: Some(kind) }
}

pub(super) fn decode_filter(message: wire::Filter) -> Result<Filter, Invalid> {
    Ok(match field::present("filters", message.kind)? {
        Kind::RequestHeaders(change) => Filter::RequestHeaders(decode_change("request_headers", change)?),
        Kind::ResponseHeaders(change) => Filter::ResponseHeaders(decode_change("response_headers", change)?),
        Kind::Redirect(redirect) => Filter::Redirect(decode_redirect(redirect)?),
        Kind::Rewrite(rewrite) => Filter::Rewrite(Rewrite {
            hostname: host("rewrite.hostname", rewrite.hostname)?,
            path: rewrite.path.map(|path| decode_path("rewrite.path", path)).transpose()?,
        }),
        Kind::Mirror(mirror) => {
            let fraction = mirror.fraction.map(|f| decode_fraction("mirror.fraction", Some(f)));
            Filter::Mirror(Mirror {
                to: decode_destination("mirror.to", field::present("mirror.to", mirror.to)?)?,
                fraction: fraction.transpose()?,
            })
        }
        Kind::Cors(cors) => Filter::Cors(decode_cors(cors)?),
    })
}

fn encode_change(change: &HeaderChange) -> wire::HeaderChange {
    let headers = |headers: &[(Arc<str>, Arc<str>)]| {
        headers
            .iter()
            .map(|(name, value)| wire::Header { name: name.to_string(), value: value.to_string() })
            .collect()
    };
    wire::HeaderChange { set: headers(&change.set), add: headers(&change.add), remove: texts(&change.remove) }
}

fn decode_change(field: &'static str, message: wire::HeaderChange) -> Result<HeaderChange, Invalid> {
    let header = |header: wire::Header| Ok((field::header(field, header.name)?, header.value.into()));
    Ok(HeaderChange {
        set: list(message.set, header)?,
        add: list(message.add, header)?,
        remove: list(message.remove, |name| field::header(field, name))?,
    })
}

fn encode_redirect(redirect: &Redirect) -> wire::Redirect {
    wire::Redirect {
        scheme: text(redirect.scheme.as_ref()),
        hostname: text(redirect.hostname.as_ref()),
        path: redirect.path.as_ref().map(encode_path),
        port: redirect.port.map(u32::from),
        status: redirect.status.into(),
        trusts_forwarded_proto: redirect.trusts_forwarded_proto,
    }
}

fn decode_redirect(message: wire::Redirect) -> Result<Redirect, Invalid> {
    let status = field::status("redirect.status", message.status)?;
    if !REDIRECTS.contains(&status) {
        return Err(Invalid::new("redirect.status", format!("{status} is not a redirect")));
    }
    let scheme: Option<Arc<str>> = message.scheme.map(Into::into);
    if let Some(other) = scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        return Err(Invalid::new("redirect.scheme", format!("{other:?} is not http or https")));
    }
    Ok(Redirect {
        scheme,
        hostname: host("redirect.hostname", message.hostname)?,
        path: message.path.map(|path| decode_path("redirect.path", path)).transpose()?,
        port: message.port.map(|port| field::port("redirect.port", port)).transpose()?,
        status,
        trusts_forwarded_proto: message.trusts_forwarded_proto,
    })
}

fn encode_path(change: &PathChange) -> wire::PathChange {
    use wire::path_change::Kind;
    let kind = match change {
        PathChange::Full(path) => Kind::Full(path.to_string()),
        PathChange::Prefix(path) => Kind::Prefix(path.to_string()),
    };
    wire::PathChange { kind: Some(kind) }
}

fn decode_path(field: &'static str, message: wire::PathChange) -> Result<PathChange, Invalid> {
    use wire::path_change::Kind;
    Ok(match field::present(field, message.kind)? {
        Kind::Full(path) => PathChange::Full(path.into()),
        Kind::Prefix(path) => PathChange::Prefix(path.into()),
    })
}

fn encode_cors(cors: &Cors) -> wire::Cors {
    wire::Cors {
        allow_origins: texts(&cors.allow_origins),
        allow_credentials: cors.allow_credentials,
        allow_methods: texts(&cors.allow_methods),
        allow_headers: texts(&cors.allow_headers),
        expose_headers: texts(&cors.expose_headers),
        max_age_ms: field::millis(cors.max_age),
    }
}

fn decode_cors(message: wire::Cors) -> Result<Cors, Invalid> {
    let words = |field, words| list(words, |word| field::required(field, word));
    Ok(Cors {
        allow_origins: words("cors.allow_origins", message.allow_origins)?,
        allow_credentials: message.allow_credentials,
        allow_methods: words("cors.allow_methods", message.allow_methods)?,
        allow_headers: words("cors.allow_headers", message.allow_headers)?,
        expose_headers: words("cors.expose_headers", message.expose_headers)?,
        max_age: field::duration("cors.max_age_ms", message.max_age_ms)?,
    })
}

fn host(field: &'static str, name: Option<String>) -> Result<Option<Arc<str>>, Invalid> {
    name.map(|name| field::required(field, name)).transpose()
}
