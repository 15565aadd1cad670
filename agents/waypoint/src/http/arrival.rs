//! Normalizes a request before it is authorized and forwarded. Pure.
//!
//! Invariant: afterwards only the filters of a route change fields that a policy may match: the request that policy sees
//! has one host, no hop-by-hop field, and every field that the waypoint adds to all requests.

use http::{HeaderName, HeaderValue, Version, header, request::Parts, uri::Scheme};

use super::{
    Refusal, extended_connect,
    headers::FORWARDED_PROTO,
    hop_by_hop::{names, strip},
};

const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const WEBSOCKET: &str = "websocket";
/// Normalizes a request. `own` is the service's host, for a client whose protocol allows it to send none. Returns whether
/// the client asks to switch to WebSocket; with HTTP/2 it does so by extended CONNECT.
///
/// # Errors
/// [`Refusal::Malformed`]
pub(super) fn arrive(parts: &mut Parts, own: &str, random: impl FnOnce() -> u128) -> Result<bool, Refusal> {
    let switches = switches(parts);
    let trailers = names(&parts.headers, &header::TE, "trailers");
    strip(&mut parts.headers);
    let headers = &mut parts.headers;
    // Fields for the next connection are set here and not later, so that policy sees what is sent.
    if switches {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // Answered by the waypoint's HTTP server (RFC 9110 10.1.1).
    headers.remove(header::EXPECT);
    // The client's certificate is that of the tunnel; applications that trust the field must not see a forged one.
    headers.remove(FORWARDED_CLIENT_CERT);
    if !headers.contains_key(FORWARDED_PROTO) {
        let is_https = parts.uri.scheme() == Some(&Scheme::HTTPS);
        let scheme = if is_https { "https" } else { "http" };
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, request_id(random()));
    }
    one_host(parts, own)?;
    Ok(switches)
}

/// Whether the client asks to switch to WebSocket. Any other protocol would bypass policy, `h2c` even with requests: its
/// fields are removed, and the request is served without a switch (RFC 9110 7.8).
fn switches(parts: &Parts) -> bool {
    let may = parts.version == Version::HTTP_11 || extended_connect::is_one(parts);
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    may && parts.headers.get(header::UPGRADE).is_some_and(is_websocket)
        && names(&parts.headers, &header::CONNECTION, "upgrade")
}

/// Reduces the request to one host, which is also in its `host` field.
fn one_host(parts: &mut Parts, own: &str) -> Result<(), Refusal> {
    let mut lines = parts.headers.get_all(header::HOST).into_iter();
    let (named, another) = (lines.next(), lines.next());
    if another.is_some() {
        return Err(Refusal::Malformed("several_host_headers"));
    }
    // RFC 9112 3.2, also where the target names one.
    if named.is_none() && parts.version == Version::HTTP_11 {
        return Err(Refusal::Malformed("missing_host_header"));
    }
    let of_target = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let is_host = |host: Option<&[u8]>| host.is_none_or(|host| host.iter().all(|byte| is_of_host(*byte)));
    if !is_host(named.map(HeaderValue::as_bytes)) || !is_host(of_target) {
        return Err(Refusal::Malformed("invalid_host_header"));
    }
    // The target takes precedence over the field (RFC 9112 3.2.2, RFC 9113 8.3.1).
    let meant = match (of_target, named) {
        (Some(of_target), Some(named)) if *named == *of_target => return Ok(()),
        (Some(of_target), _) => of_target,
        (None, Some(_)) => return Ok(()),
        (None, None) => own.as_bytes(),
    };
    if let Ok(host) = HeaderValue::from_bytes(meant) {
        parts.headers.insert(header::HOST, host);
    }
    Ok(())
}

/// Whether a byte may stand in a name or address with a port (RFC 9110 4.2.1). User information is an error (4.2.4), and
/// two readers may decode escapes differently.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte)
}

/// A UUID of version 4, as Envoy generates it.
fn request_id(random: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    const VERSION: u128 = !(0xf << 76);
    let id = random & VERSION & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    let mut text = [b'-'; 36];
    let places = text.iter_mut().enumerate().filter(|(at, _)| ![8, 13, 18, 23].contains(at));
    for (nth, (_, place)) in places.enumerate() {
        let digit = usize::try_from(id >> (124 - 4 * nth) & 0xf).unwrap_or_default();
        *place = DIGITS.get(digit).copied().unwrap_or(b'0');
    }
    // Digits and dashes are always a valid value.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests;
