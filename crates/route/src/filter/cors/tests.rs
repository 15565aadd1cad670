use std::time::Duration;

use super::*;

const ORIGIN: &str = "https://shop.example.com";

fn cors(origins: &[&str], credentials: bool) -> Cors {
    let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    Cors {
        allow_origins: list(origins),
        allow_credentials: credentials,
        allow_methods: list(&["GET", "PUT"]),
        allow_headers: list(&["x-a", "x-b"]),
        expose_headers: list(&["x-c"]),
        max_age: Duration::from_secs(5),
    }
}

fn wild(credentials: bool) -> Cors {
    let any = || vec!["*".into()];
    Cors { allow_methods: any(), allow_headers: any(), expose_headers: any(), ..cors(&["*"], credentials) }
}

fn asked(method: &str, headers: &[(&str, &str)]) -> http::request::Parts {
    let mut request = http::Request::builder().method(method);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn preflight(origin: &str) -> http::request::Parts {
    asked(
        "OPTIONS",
        &[
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-a"),
        ],
    )
}

/// The response of the filter, if there is one: status and CORS headers.
fn answered(
    cors: &Cors,
    request: &http::request::Parts,
    of_service: &[(&str, &str)],
) -> (Option<u16>, Vec<(String, String)>) {
    let head = RequestHead::from(request);
    let filter = CrossOrigin::compile(cors).unwrap();
    let answer = CrossOriginRequest::of(&head).and_then(|asked| filter.answer(&asked));
    let mut headers = HeaderMap::new();
    for (name, value) in of_service {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    filter.mark(&mut headers, CrossOriginRequest::of(&head).as_ref());
    let mut said: Vec<_> =
        headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    said.sort();
    (answer.map(|answer| answer.status().as_u16()), said)
}

fn said(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_preflight_of_an_allowed_origin_is_told_what_it_may_do() {
    let (status, headers) = answered(&cors(&[ORIGIN], true), &preflight(ORIGIN), &[]);
    assert_eq!(status, Some(204));
    assert_eq!(
        headers,
        said(&[
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", "x-a, x-b"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-origin", ORIGIN),
            ("access-control-max-age", "5"),
            ("vary", "origin"),
        ])
    );
}

#[test]
fn a_preflight_of_another_origin_is_answered_without_any_permission() {
    let (status, headers) =
        answered(&cors(&["https://*.example.com"], true), &preflight("https://evil.org"), &[]);
    assert_eq!(status, Some(204));
    assert_eq!(headers, said(&[("vary", "origin")]));
}

#[test]
fn wildcards_are_told_as_such_without_credentials_only() {
    let (_, headers) = answered(&wild(false), &preflight(ORIGIN), &[]);
    assert_eq!(
        headers,
        said(&[
            ("access-control-allow-headers", "*"),
            ("access-control-allow-methods", "*"),
            ("access-control-allow-origin", "*"),
            ("access-control-max-age", "5"),
        ])
    );
    let (_, headers) = answered(&wild(true), &preflight(ORIGIN), &[]);
    assert_eq!(
        headers,
        said(&[
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", "x-a"),
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-origin", ORIGIN),
            ("access-control-max-age", "5"),
            ("vary", "origin"),
        ])
    );
    let bare = asked("OPTIONS", &[("origin", ORIGIN), ("access-control-request-method", "PUT")]);
    let (_, headers) = answered(&wild(true), &bare, &[]);
    assert!(!headers.iter().any(|(name, _)| name == "access-control-allow-headers"), "{headers:?}");
}

#[test]
fn a_request_goes_on_and_its_response_is_marked_by_the_route_alone() {
    let request = asked("GET", &[("origin", ORIGIN)]);
    let of_service = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "*"),
        ("vary", "accept"),
        ("x-other", "1"),
    ];
    let (status, headers) = answered(&cors(&[ORIGIN], false), &request, &of_service);
    assert_eq!(status, None);
    assert_eq!(
        headers,
        said(&[
            ("access-control-allow-origin", ORIGIN),
            ("access-control-expose-headers", "x-c"),
            ("vary", "accept"),
            ("vary", "origin"),
            ("x-other", "1"),
        ])
    );
    let (_, headers) = answered(&cors(&["https://other.org"], false), &request, &of_service);
    assert_eq!(headers, said(&[("vary", "accept"), ("vary", "origin"), ("x-other", "1")]));
    let (_, headers) = answered(&wild(true), &request, &of_service);
    assert!(!headers.iter().any(|(_, value)| value == "*"), "{headers:?}");
}

#[test]
fn what_no_browser_asks_across_origins_is_left_alone() {
    let cases = [
        ("no origin", asked("GET", &[])),
        (
            "no origin, but the rest of a preflight",
            asked("OPTIONS", &[("access-control-request-method", "PUT")]),
        ),
    ];
    for (name, request) in cases {
        let (status, headers) =
            answered(&cors(&[ORIGIN], false), &request, &[("access-control-allow-origin", "x")]);
        assert_eq!(status, None, "{name}");
        assert_eq!(headers, said(&[("access-control-allow-origin", "x"), ("vary", "origin")]), "{name}");
    }
    let (_, headers) = answered(&cors(&[ORIGIN], false), &asked("GET", &[]), &[("vary", "Accept, Origin")]);
    assert_eq!(headers, said(&[("vary", "Accept, Origin")]));
    let no_preflight = [
        ("OPTIONS by itself", asked("OPTIONS", &[("origin", ORIGIN)])),
        ("not OPTIONS", asked("PUT", &[("origin", ORIGIN), ("access-control-request-method", "PUT")])),
    ];
    for (name, request) in no_preflight {
        assert_eq!(answered(&cors(&[ORIGIN], false), &request, &[]).0, None, "{name}");
    }
}

#[test]
fn a_rule_that_cannot_be_told_is_refused() {
    let origin = cors(&["example.com"], false);
    assert_eq!(CrossOrigin::compile(&origin).unwrap_err(), Invalid::Origin("example.com".into()));
    let methods = Cors { allow_methods: vec!["A\nB".into()], ..cors(&[ORIGIN], false) };
    assert_eq!(
        CrossOrigin::compile(&methods).unwrap_err(),
        Invalid::HeaderValue("access-control-allow-methods".into())
    );
}
