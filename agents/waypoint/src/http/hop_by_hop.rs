//! Header fields of one connection, which are not forwarded (RFC 9110 7.6.1). Pure.
//!
//! Invariant: a client removes no field by naming it in `connection` that every recipient has to see.

use std::str::FromStr;

use http::{HeaderMap, HeaderName, header};

/// Fields of one connection, whether or not `connection` names them.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
];
/// Fields that are kept even if `connection` names them, which RFC 9110 7.6.1 forbids: the endpoint would otherwise see
/// another request than the client sent.
const OF_EVERY_RECIPIENT: [HeaderName; 10] = [
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL,
    header::ORIGIN,
    header::FORWARDED,
    HeaderName::from_static("x-request-id"),
];

/// Whether a comma-separated list contains a token, ignoring case.
pub(super) fn names(headers: &HeaderMap, list: &HeaderName, token: &str) -> bool {
    entries(headers, list).any(|entry| entry.eq_ignore_ascii_case(token))
}

fn entries<'a>(headers: &'a HeaderMap, list: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(list).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Removes hop-by-hop fields, and those that `connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let is_field = |entry: &&str| !["close", "keep-alive"].iter().any(|o| entry.eq_ignore_ascii_case(o));
        let named: Vec<HeaderName> = entries(headers, &header::CONNECTION)
            .filter(is_field)
            .filter_map(|name| HeaderName::from_str(name).ok())
            .filter(|name| !is_for_every_recipient(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn is_for_every_recipient(name: &HeaderName) -> bool {
    OF_EVERY_RECIPIENT.contains(name) || name.as_str().starts_with("x-forwarded-")
}
