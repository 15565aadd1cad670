//! The head of a request as HTTP/1.1 and HTTP/2 write it. Pure.
//!
//! Invariant: the host that policy allowed, or that a filter has set, is not changed.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::SizeHint;

pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Writes a request for HTTP/1.1: a path, and the host in a field. A body of unknown length is sent in chunks; for methods
/// that seldom have one, the codec would otherwise send none.
pub(super) fn for_http1(parts: &mut Parts, is_unsized: bool) {
    if parts.uri.authority().is_some() {
        let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(target);
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    parts.version = Version::HTTP_11;
    if is_unsized {
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Removes the request to switch the connection to another protocol.
pub(super) fn stays(headers: &mut HeaderMap) {
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE);
}

/// Writes a request for HTTP/2: the host in the target.
pub(super) fn for_http2(parts: &mut Parts) {
    stays(&mut parts.headers);
    let host = parts.headers.remove(header::HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = std::mem::take(&mut parts.uri).into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = authority.or(target.authority);
    if target.path_and_query.is_none() {
        target.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    // Fails only without an authority: the request then has a path alone.
    let path = target.path_and_query.clone();
    parts.uri = Uri::from_parts(target).unwrap_or_else(|_| path.map(Uri::from).unwrap_or_default());
    parts.version = Version::HTTP_2;
}

/// Removes `content-length` unless it is the length of the body: the request is framed anew for the next connection
/// (RFC 9112 6.3).
pub(super) fn with_length(headers: &mut HeaderMap, body: &SizeHint) {
    let Some(said) = headers.get(header::CONTENT_LENGTH) else { return };
    let said = said.to_str().ok().and_then(|said| said.parse::<u64>().ok());
    if said.is_none() || said != body.exact() {
        headers.remove(header::CONTENT_LENGTH);
    }
}

/// Joins cookies, which HTTP/2 may spread over several fields and HTTP/1.1 not (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Whether a request is gRPC: its content type may name the message format (grpc/doc/PROTOCOL-HTTP2.md).
/// `application/grpc-web` is another protocol.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let is_one = |value: &HeaderValue| {
        let (named, rest) = value.as_bytes().split_at_checked(GRPC.len()).unwrap_or_default();
        named.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    };
    headers.get(header::CONTENT_TYPE).is_some_and(is_one)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, uri: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn shown(parts: &Parts) -> Vec<String> {
        let line =
            |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut lines: Vec<String> = parts.headers.iter().map(line).collect();
        lines.sort();
        lines.insert(0, parts.uri.to_string());
        lines
    }

    #[test]
    fn the_host_moves_between_field_and_target_unchanged() {
        let headers = [("host", "cart:8080"), ("cookie", "a=1"), ("cookie", "b=2")];
        let mut one = parts(Version::HTTP_2, "http://cart:8080/a", &headers);
        let mut two = one.clone();
        for_http1(&mut one, false);
        assert_eq!(shown(&one), ["/a", "cookie: a=1; b=2", "host: cart:8080"]);
        for_http2(&mut two);
        assert_eq!(two.uri.to_string(), "http://cart:8080/a");
        assert!(!two.headers.contains_key("host"));
    }

    #[test]
    fn http2_has_no_fields_of_a_connection() {
        let headers = [("host", "cart"), ("connection", "upgrade"), ("upgrade", "websocket")];
        let mut one = parts(Version::HTTP_11, "/ws", &headers);
        for_http2(&mut one);
        assert_eq!(shown(&one), ["http://cart/ws"]);
    }

    #[test]
    fn a_length_that_is_not_the_bodys_does_not_go_on() {
        let (four, unknown) = (SizeHint::with_exact(4), SizeHint::default());
        for (said, body, expected) in
            [("4", &four, true), ("5", &four, false), ("4", &unknown, false), ("x", &four, false)]
        {
            let mut one = parts(Version::HTTP_11, "/", &[("content-length", said)]);
            with_length(&mut one.headers, body);
            assert_eq!(one.headers.contains_key("content-length"), expected, "{said} {body:?}");
        }
    }

    #[test]
    fn grpc_is_told_by_its_type_alone() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web-text+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            let one = parts(Version::HTTP_2, "/", &[("content-type", value)]);
            assert_eq!(is_grpc(&one.headers), expected, "{value}");
        }
    }
}
