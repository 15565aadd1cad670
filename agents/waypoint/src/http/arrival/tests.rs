use http::Request;
use hyper::ext::Protocol;

use super::*;

type Fields = &'static [(&'static str, &'static str)];

fn parts(version: Version, uri: &str, headers: Fields) -> Parts {
    let mut request = Request::builder().version(version).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// As it is judged: without the id, which is every time another.
fn judged(version: Version, uri: &str, headers: Fields) -> Result<Vec<String>, Refusal> {
    let mut parts = parts(version, uri, headers);
    arrive(&mut parts, "own", || 0)?;
    let fields = parts.headers.iter().filter(|(name, _)| *name != REQUEST_ID);
    let mut lines: Vec<_> =
        fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    Ok(lines)
}

const HTTP: &str = "x-forwarded-proto: http";

#[test]
fn fields_of_the_clients_connection_are_gone_before_anybody_judges() {
    let headers = &[
        ("host", "cart:8080"),
        ("connection", "close, X-Mine"),
        ("connection", "x-other"),
        ("x-mine", "1"),
        ("x-other", "1"),
        ("keep-alive", "5"),
        ("te", "gzip, trailers"),
        ("transfer-encoding", "chunked"),
        ("http2-settings", "AAMAAABk"),
        ("x-yours", "2"),
        ("expect", "100-continue"),
    ];
    assert_eq!(
        judged(Version::HTTP_11, "/a?b", headers).unwrap(),
        ["host: cart:8080", "te: trailers", HTTP, "x-yours: 2"]
    );
}

#[test]
fn a_client_cannot_name_a_field_of_every_recipient_as_one_of_its_connection() {
    const NAMED: &str = "close, Host, authorization, cookie, content-length, content-type, x-forwarded-for, \
                         forwarded, x-forwarded-proto, origin, x-request-id";
    let kept = [
        ("host", "cart"),
        ("authorization", "Bearer a"),
        ("cookie", "a=b"),
        ("content-length", "3"),
        ("content-type", "text/plain"),
        ("x-forwarded-for", "198.51.100.7"),
        ("forwarded", "for=198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("origin", "https://app"),
        ("x-request-id", "mine"),
    ];
    let mut request = Request::post("/").header("connection", NAMED);
    for (name, value) in kept {
        request = request.header(name, value);
    }
    let mut parts = request.body(()).unwrap().into_parts().0;
    arrive(&mut parts, "own", || 0).unwrap();
    for (name, value) in kept {
        assert_eq!(parts.headers[name], value, "{name}");
    }
    assert_eq!(parts.headers.len(), kept.len());
}

#[test]
fn a_request_has_one_host() {
    const H1: Version = Version::HTTP_11;
    const H2: Version = Version::HTTP_2;
    let cases: [(Version, &str, Fields, Result<&str, &str>); 16] = [
        (H1, "/", &[("host", "cart:80")], Ok("cart:80")),
        (H1, "/", &[("host", "[::1]:80")], Ok("[::1]:80")),
        (H1, "/", &[], Err("missing_host_header")),
        (H1, "http://cart/", &[], Err("missing_host_header")),
        (H1, "/", &[("host", "a"), ("host", "b")], Err("several_host_headers")),
        (H1, "/", &[("host", "a"), ("host", "a")], Err("several_host_headers")),
        (H1, "http://cart/", &[("host", "other")], Ok("cart")),
        (H1, "/", &[("host", "a@b")], Err("invalid_host_header")),
        (H1, "/", &[("host", "a/b")], Err("invalid_host_header")),
        (H1, "/", &[("host", "a%2eb")], Err("invalid_host_header")),
        (H1, "/", &[("host", "a, b")], Err("invalid_host_header")),
        (H1, "http://user@cart/", &[("host", "cart")], Err("invalid_host_header")),
        (Version::HTTP_10, "/", &[], Ok("own")),
        (H2, "http://cart/", &[("host", "other")], Ok("cart")),
        (H2, "/", &[], Ok("own")),
        (H2, "http://cart/", &[("host", "a"), ("host", "b")], Err("several_host_headers")),
    ];
    for (version, uri, headers, expected) in cases {
        let expected = match expected {
            Ok(host) => Ok(vec![format!("host: {host}"), HTTP.to_owned()]),
            Err(why) => Err(Refusal::Malformed(why)),
        };
        assert_eq!(judged(version, uri, headers), expected, "{version:?} {uri} {headers:?}");
    }
}

#[test]
fn only_a_websocket_is_asked_for_again_and_before_it_is_judged() {
    const ASKED: Fields = &[("connection", "Upgrade"), ("upgrade", "WebSocket"), ("host", "c")];
    const H2C: Fields = &[
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AA"),
        ("host", "c"),
    ];
    let switching = ["connection: upgrade", "host: c", "upgrade: websocket", HTTP];
    assert_eq!(judged(Version::HTTP_11, "/ws", ASKED).unwrap(), switching);
    let plain = ["host: c", HTTP];
    assert_eq!(judged(Version::HTTP_11, "/", H2C).unwrap(), plain);
    assert_eq!(judged(Version::HTTP_10, "/", ASKED).unwrap(), plain);
    let mut extended = parts(Version::HTTP_2, "http://c/ws", &ASKED[..2]);
    extended.extensions.insert(Protocol::from_static("websocket"));
    assert_eq!(arrive(&mut extended, "own", || 0), Ok(true));
}

#[test]
fn nobody_hears_of_a_certificate_that_the_client_only_writes_about() {
    const FORGED: Fields =
        &[("host", "c"), ("x-forwarded-client-cert", "By=spiffe://cluster.local/ns/a/sa/b")];
    assert_eq!(judged(Version::HTTP_11, "/", FORGED).unwrap(), ["host: c", HTTP]);
}

#[test]
fn a_request_without_an_id_gets_one_that_is_a_uuid() {
    let id = |random: u128| request_id(random).to_str().unwrap().to_owned();
    assert_eq!(id(0), "00000000-0000-4000-8000-000000000000");
    assert_eq!(id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(id(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), "01234567-89ab-4def-8123-456789abcdef");
    let mut given = parts(Version::HTTP_11, "/", &[("host", "c"), ("x-request-id", "mine")]);
    arrive(&mut given, "own", || unreachable!("it has one")).unwrap();
    assert_eq!(given.headers[REQUEST_ID], "mine");
}
