//! Converts WebSocket over HTTP/2 (RFC 8441) to the GET of WebSocket over HTTP/1.1 (RFC 6455), and back. Pure.
//!
//! Invariant: it is authorized and routed as that GET. To such a client every 2xx status means that the connection has
//! switched, so it gets one only if the endpoint has switched.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use hyper::ext::Protocol;

use super::hop_by_hop;

const WEBSOCKET: &str = "websocket";
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// Whether a request is an extended CONNECT for WebSocket.
pub(super) fn is_one(parts: &Parts) -> bool {
    // The version is compared first because it is cheap, and this runs for every request.
    parts.version == http::Version::HTTP_2
        && parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// Converts an extended CONNECT to a GET; other requests are not changed.
pub(super) fn read(parts: &mut Parts, random: impl FnOnce() -> u128) {
    if parts.method != Method::CONNECT || !is_one(parts) {
        return;
    }
    parts.method = Method::GET;
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    // HTTP/2 has no key, and a server of HTTP/1.1 requires one.
    if let Ok(key) = HeaderValue::try_from(key(random())) {
        parts.headers.insert(KEY, key);
    }
}

/// A `sec-websocket-key`: 16 bytes in base64 (RFC 6455 4.1).
fn key(random: u128) -> String {
    STANDARD.encode(random.to_le_bytes())
}

/// Converts a request that came as extended CONNECT back, for an endpoint of HTTP/2.
pub(super) fn write(parts: &mut Parts) {
    if parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == WEBSOCKET) {
        parts.method = Method::CONNECT;
        parts.headers.remove(KEY);
    }
}

/// Whether the client takes a response as a switch; with extended CONNECT that is every 2xx status.
pub(super) fn is_switch(is_extended: bool, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || is_extended && status.is_success()
}

/// Writes the response for a client of HTTP/2 after the endpoint has switched.
pub(super) fn answer<B>(response: &mut Response<B>) {
    let headers: &mut HeaderMap = response.headers_mut();
    hop_by_hop::strip(headers);
    headers.remove(ACCEPT);
    *response.status_mut() = StatusCode::OK;
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};

    use super::{
        super::{arrival, headers},
        *,
    };

    fn asked(protocol: &'static str) -> Parts {
        let request = Request::connect("http://cart/ws?a").version(Version::HTTP_2);
        let request =
            request.extension(Protocol::from_static(protocol)).header("sec-websocket-version", "13");
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn is_read_as_the_get_of_http1_and_written_as_it_came() {
        let mut parts = asked("websocket");
        read(&mut parts, || 0);
        assert_eq!((&parts.method, parts.uri.path()), (&Method::GET, "/ws"));
        assert_eq!(arrival::arrive(&mut parts, "own", || 0), Ok(true));
        let mut old = parts.clone();
        headers::for_http1(&mut old, false);
        assert_eq!(
            (old.headers["upgrade"].as_bytes(), old.uri.to_string()),
            (&b"websocket"[..], "/ws?a".into())
        );
        assert_eq!(old.headers["sec-websocket-key"], "AAAAAAAAAAAAAAAAAAAAAA==");
        headers::for_http2(&mut parts);
        write(&mut parts);
        assert_eq!((&parts.method, parts.uri.to_string()), (&Method::CONNECT, "http://cart/ws?a".into()));
        assert!(!parts.headers.contains_key("sec-websocket-key") && !parts.headers.contains_key("upgrade"));
    }

    #[test]
    fn any_other_protocol_and_any_other_request_stay_as_they_are() {
        let mut other = asked("connect-udp");
        read(&mut other, || unreachable!("nothing is read"));
        write(&mut other);
        assert_eq!((other.method, other.headers.contains_key("upgrade")), (Method::CONNECT, false));
        let mut get = Request::get("/").version(Version::HTTP_2).body(()).unwrap().into_parts().0;
        read(&mut get, || unreachable!("nothing is read"));
        write(&mut get);
        assert_eq!(get.method, Method::GET);
    }

    #[test]
    fn keys_are_sixteen_bytes_of_base64() {
        assert_eq!(key(0), "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(key(u128::MAX), "/////////////////////w==");
    }

    #[test]
    fn any_good_answer_to_one_is_about_switching() {
        for (is_extended, status, expected) in [
            (false, 200, false),
            (false, 101, true),
            (true, 101, true),
            (true, 204, true),
            (true, 403, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_switch(is_extended, status), expected, "{is_extended} {status}");
        }
    }
}
