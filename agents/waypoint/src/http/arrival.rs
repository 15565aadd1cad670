//! A request as it comes in, made into the one that is judged and sent on. Pure.
//!
//! Invariant: after this, nothing but the filters of a route changes a field that somebody may judge: the request that
//! policy sees has one host, no field of the client's connection, and every field that this proxy adds to all requests.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts, uri::Scheme};

use super::{
    Refusal, extended_connect,
    headers::FORWARDED_PROTO,
    hop_by_hop::{names, strip},
};

const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const WEBSOCKET: &str = "websocket";
/// Makes a request ready to be judged. `own` is the service's host, for a client that may leave its own out. True: the
/// connection is to switch to WebSocket; HTTP/2 asks for that by extended CONNECT.
///
/// # Errors
/// [`Refusal::Malformed`]
pub(super) fn arrive(parts: &mut Parts, own: &str, random: impl FnOnce() -> u128) -> Result<bool, Refusal> {
    let switches = switches(parts);
    let trailers = names(&parts.headers, &header::TE, "trailers");
    strip(&mut parts.headers);
    let headers = &mut parts.headers;
    // What is asked of the next connection is said again before anybody judges, not after.
    if switches {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // This end has answered it already (RFC 9110 10.1.1).
    headers.remove(header::EXPECT);
    // The peer's certificate is the one of the tunnel; an application that trusts the field must not hear of another.
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

/// Any protocol but WebSocket would carry what nobody judges; `h2c` even requests. Its fields go, and the request is one
/// as any other (RFC 9110 7.8).
fn switches(parts: &Parts) -> bool {
    let may = parts.version == Version::HTTP_11 || extended_connect::is_one(parts);
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    may && parts.headers.get(header::UPGRADE).is_some_and(is_websocket)
        && names(&parts.headers, &header::CONNECTION, "upgrade")
}

/// Leaves the request one host, in its `host` field too.
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
    // The target's comes before the field's (RFC 9112 3.2.2, RFC 9113 8.3.1).
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

/// A name or an address, and a port (RFC 9110 4.2.1). Neither user information, which is an error (4.2.4), nor escapes:
/// two readers would not undo them alike.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte)
}

/// A UUID of version 4, as Envoy makes them.
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
    // Digits and dashes always are a value.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests;
