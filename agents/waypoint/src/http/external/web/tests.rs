use ambit_model::StringMatch;

use super::*;

fn exact(names: &[&str]) -> Vec<StringMatch> {
    names.iter().map(|name| StringMatch::Exact((*name).into())).collect()
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn answered(
    status: u16,
    pairs: &[(&'static str, &'static str)],
    body: Result<&'static str, NoAnswer>,
) -> Answered {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::from_u16(status).unwrap();
    head.headers = headers(pairs);
    Answered { head, body: body.map(|text| (Bytes::from_static(text.as_bytes()), HeaderMap::new())) }
}

fn refused(http: &HttpCheck, answered: Answered) -> Response<Bytes> {
    match read(http, answered, &HeaderMap::new()) {
        Ok(Decision::Refuse(response)) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_200_admits_and_what_failed_is_no_answer() {
    let http = HttpCheck::default();
    for status in [200_u16, 201, 202, 302, 401, 403, 404, 499, 500, 503] {
        let decision = read(&http, answered(status, &[], Ok("")), &HeaderMap::new());
        match status {
            200 => assert!(matches!(decision, Ok(Decision::Admit(_)))),
            500.. => assert!(decision.is_err(), "{status}"),
            _ => assert!(matches!(decision, Ok(Decision::Refuse(r)) if r.status() == status), "{status}"),
        }
    }
    // A refusal whose body does not come stays one, or failing open would admit.
    let cut = refused(&http, answered(401, &[("x-why", "1")], Err(NoAnswer::Late)));
    assert_eq!(cut.status(), 401);
    assert_eq!(cut.headers()["x-why"], "1");
}

#[test]
fn what_the_client_sent_under_a_providers_name_does_not_go_on() {
    let http = HttpCheck {
        upstream_on_allow: vec![StringMatch::Prefix("x-auth-".into())],
        downstream_on_allow: exact(&["set-cookie"]),
        ..HttpCheck::default()
    };
    let client = headers(&[
        ("x-auth-user", "root"),
        ("x_auth_user", "root"),
        ("x-auth-mail", "a@b"),
        ("x-other", "1"),
    ]);
    let answer = [
        ("x-auth-user", "jane"),
        ("x-secret", "s"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-envoy-auth-headers-to-remove", "authorization, Host , x-other"),
    ];
    let Ok(Decision::Admit(changes)) = read(&http, answered(200, &answer, Ok("")), &client) else { panic!() };
    let mut removed: Vec<_> = changes.removed.iter().map(HeaderName::as_str).collect();
    removed.sort_unstable();
    assert_eq!(removed, ["authorization", "x-auth-mail", "x-auth-user", "x-other", "x_auth_user"]);
    let set: Vec<_> = changes.request.iter().map(|c| (c.name.as_str(), c.value.to_str().unwrap())).collect();
    assert_eq!(set, [("x-auth-user", "jane")]);
    assert_eq!(changes.response.len(), 2);
}

#[test]
fn a_refusal_reaches_the_client_with_the_headers_that_are_for_it() {
    let answer = [("location", "/login"), ("x-why", "no"), ("connection", "close"), ("content-length", "2")];
    let all = refused(&HttpCheck::default(), answered(302, &answer, Ok("go")));
    assert_eq!(all.headers().len(), 2, "not those of the connection: {:?}", all.headers());
    assert_eq!(&all.body()[..], b"go");
    let some = HttpCheck { downstream_on_deny: exact(&["x-other"]), ..HttpCheck::default() };
    let some = refused(&some, answered(302, &answer, Ok("go")));
    assert_eq!(some.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["location"]);
}

#[test]
fn the_provider_sees_what_it_was_promised_and_nothing_else() {
    let http = HttpCheck {
        path_prefix: "/check".into(),
        request_headers: exact(&["cookie", "content-length"]),
        additional_headers: vec![("x-more".into(), "1".into())],
        ..HttpCheck::default()
    };
    let (parts, ()) = Request::put("http://cart/a?b")
        .header("host", "cart")
        .header("authorization", "Bearer x")
        .header("cookie", "a=1")
        .header("x-more", "of the client")
        .header("x-hidden", "1")
        .header("content-length", "700")
        .body(())
        .unwrap()
        .into_parts();
    let shown = Shown { host: "cart".into(), body: Bytes::from_static(b"so") };
    let asked = request(&http, &parts, &shown);
    assert_eq!((asked.method().as_str(), asked.uri().to_string().as_str()), ("PUT", "/check/a?b"));
    let mut seen: Vec<_> =
        asked.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    seen.sort();
    assert_eq!(
        seen,
        ["authorization: Bearer x", "content-length: 2", "cookie: a=1", "host: cart", "x-more: 1"]
    );
}
