//! Header fields that belong to one connection, and the two ways to write the target of a request. Pure.
//!
//! Invariant: no field of one connection reaches the next, and the host that the client named stays as it wrote it.

use std::str::FromStr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::extended_connect;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Fields of one connection (RFC 9110 7.6.1).
const OF_ONE_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
];

/// What a request wants of its connection, read before those fields go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// The protocol to switch to (`connection: upgrade`): WebSocket. Any other would carry what nobody judges; `h2c`
    /// even requests. Its fields go, and the request is one as any other (RFC 9110 7.8).
    /// HTTP/2 asks by extended CONNECT.
    pub upgrade: Option<HeaderValue>,
    /// Trailers are understood (`te: trailers`).
    pub trailers: bool,
}

impl Wishes {
    /// As a request states them.
    pub(super) fn of(parts: &Parts) -> Self {
        let named = |name: &HeaderName, token: &str| {
            let lines = parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            lines.flat_map(|line| line.split(',')).any(|entry| entry.trim().eq_ignore_ascii_case(token))
        };
        let may = parts.version == Version::HTTP_11 || extended_connect::is_one(parts);
        let upgrades = may && named(&header::CONNECTION, "upgrade");
        Self {
            upgrade: parts
                .headers
                .get(header::UPGRADE)
                .filter(|value| upgrades && is_websocket(value))
                .cloned(),
            trailers: named(&header::TE, "trailers"),
        }
    }
}

fn is_websocket(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// Removes the fields of one connection, and those that `connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|name| HeaderName::from_str(name.trim()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
}

/// Makes a request that came by one connection fit for the next. `host` is the service's own, for a client that names
/// none.
pub(super) fn forward(parts: &mut Parts, wishes: &Wishes, host: &str) {
    strip(&mut parts.headers);
    if wishes.trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // This end has answered it already (RFC 9110 10.1.1).
    parts.headers.remove(header::EXPECT);
    if !parts.headers.contains_key(FORWARDED_PROTO) {
        parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    // The target's authority comes before the field (RFC 9112 3.2.2).
    let named = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    match named {
        Some(named) => _ = parts.headers.insert(header::HOST, named),
        None if parts.headers.contains_key(header::HOST) => {}
        None => _ = HeaderValue::from_str(host).map(|host| parts.headers.insert(header::HOST, host)),
    }
}

/// Writes a request as HTTP/1.1 has it: a path, and the host in a field.
pub(super) fn for_http1(parts: &mut Parts, upgrade: Option<&HeaderValue>) {
    if parts.uri.authority().is_some() {
        let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(target);
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    parts.version = Version::HTTP_11;
    if let Some(protocol) = upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol.clone());
    }
}

/// Writes a request as HTTP/2 has it: the host in the target.
pub(super) fn for_http2(parts: &mut Parts) {
    let host = parts.headers.remove(header::HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = std::mem::take(&mut parts.uri).into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = authority.or(target.authority);
    if target.path_and_query.is_none() {
        target.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    // Fails only without an authority; a client that named no valid host gets a path alone.
    let path = target.path_and_query.clone();
    parts.uri = Uri::from_parts(target).unwrap_or_else(|_| path.map(Uri::from).unwrap_or_default());
    parts.version = Version::HTTP_2;
}

/// HTTP/2 may spread cookies over several fields, HTTP/1.1 not (RFC 9113 8.2.3).
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

/// Whether a request is one of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
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
        let mut lines: Vec<String> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines.insert(0, parts.uri.to_string());
        lines
    }

    #[test]
    fn fields_of_one_connection_do_not_reach_the_next() {
        let mut one = parts(
            Version::HTTP_11,
            "/a?b",
            &[
                ("host", "cart:8080"),
                ("connection", "close, x-mine"),
                ("x-mine", "1"),
                ("keep-alive", "5"),
                ("te", "gzip, trailers"),
                ("transfer-encoding", "chunked"),
                ("x-yours", "2"),
                ("expect", "100-continue"),
            ],
        );
        let wishes = Wishes::of(&one);
        forward(&mut one, &wishes, "cart.shop.svc.cluster.local");
        for_http1(&mut one, None);
        assert_eq!(
            shown(&one),
            ["/a?b", "host: cart:8080", "te: trailers", "x-forwarded-proto: http", "x-yours: 2"]
        );
    }

    #[test]
    fn the_host_moves_between_field_and_target_unchanged() {
        let mut one = parts(
            Version::HTTP_2,
            "http://cart:8080/a",
            &[("host", "ignored"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-forwarded-proto", "https")],
        );
        forward(&mut one, &Wishes::default(), "own");
        let mut two = one.clone();
        for_http1(&mut one, None);
        assert_eq!(shown(&one), ["/a", "cookie: a=1; b=2", "host: cart:8080", "x-forwarded-proto: https"]);
        for_http2(&mut two);
        assert_eq!(two.uri.to_string(), "http://cart:8080/a");
        assert!(!two.headers.contains_key("host"));
    }

    #[test]
    fn a_client_that_names_no_host_means_the_service() {
        let mut one = parts(Version::HTTP_10, "/", &[]);
        forward(&mut one, &Wishes::default(), "cart.shop");
        for_http2(&mut one);
        assert_eq!(one.uri.to_string(), "http://cart.shop/");
    }

    #[test]
    fn an_upgrade_is_asked_for_again() {
        let mut one = parts(
            Version::HTTP_11,
            "/ws",
            &[("connection", "Upgrade"), ("upgrade", "websocket"), ("host", "c")],
        );
        let wishes = Wishes::of(&one);
        forward(&mut one, &wishes, "own");
        assert!(!one.headers.contains_key("upgrade"));
        for_http1(&mut one, wishes.upgrade.as_ref());
        assert_eq!(
            (&one.headers["connection"], &one.headers["upgrade"]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
        let old = parts(Version::HTTP_10, "/", &[("connection", "upgrade"), ("upgrade", "x")]);
        assert_eq!(Wishes::of(&old).upgrade, None);
        let smuggled = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c")];
        assert_eq!(Wishes::of(&parts(Version::HTTP_11, "/", &smuggled)).upgrade, None);
    }
}
