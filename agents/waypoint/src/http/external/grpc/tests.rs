use ambit_proto::{
    envoy::{
        config::core::v3::{HeaderValue as Value, QueryParameter},
        r#type::v3::HttpStatus,
    },
    google::rpc::Status,
};

use super::*;

fn answered(status: u16, message: &[u8], grpc_status: Option<&'static str>) -> Answered {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::from_u16(status).unwrap();
    let mut trailers = HeaderMap::new();
    if let Some(code) = grpc_status {
        trailers.insert(GRPC_STATUS, HeaderValue::from_static(code));
    }
    Answered { head, body: Ok((Bytes::copy_from_slice(message), trailers)) }
}

fn framed(response: &CheckResponse) -> Vec<u8> {
    let message = response.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

fn says(code: Option<i32>, http: Option<HttpResponse>) -> CheckResponse {
    CheckResponse { status: code.map(|code| Status { code, message: String::new() }), http_response: http }
}

fn option(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(Value { key: name.into(), value: value.into(), raw_value: Vec::new() }),
        ..HeaderValueOption::default()
    }
}

fn ok(headers: Vec<HeaderValueOption>) -> Option<HttpResponse> {
    Some(HttpResponse::OkResponse(OkHttpResponse { headers, ..OkHttpResponse::default() }))
}

/// `yes`, the status of the refusal, or nothing where there is no answer.
fn verdict(response: CheckResponse) -> String {
    match decide(response) {
        Ok(Decision::Admit(_)) => "yes".into(),
        Ok(Decision::Refuse(refusal)) => refusal.status().as_u16().to_string(),
        Err(_) => String::new(),
    }
}

#[test]
fn only_ok_admits_and_an_answer_that_says_two_things_or_nothing_does_not() {
    let denied = |code| {
        let status = Some(HttpStatus { code });
        Some(HttpResponse::DeniedResponse(DeniedHttpResponse { status, ..DeniedHttpResponse::default() }))
    };
    for (response, expected) in [
        (says(Some(0), None), "yes"),
        (says(Some(0), ok(vec![])), "yes"),
        (says(None, ok(vec![])), "yes"),
        (says(Some(7), None), "403"),
        (says(Some(16), ok(vec![])), "403"),
        (says(Some(7), denied(401)), "401"),
        (says(Some(7), denied(302)), "302"),
        (says(Some(7), denied(0)), "403"),
        (says(Some(7), denied(101)), "403"),
        (says(Some(7), denied(999)), "403"),
        (says(Some(0), denied(401)), "401"),
        (says(None, denied(401)), "401"),
        (says(None, None), ""),
        (says(Some(0), ok(vec![option(":path", "/admin")])), ""),
        (says(Some(0), ok(vec![option("Host", "other")])), ""),
        (says(Some(0), ok(vec![option("content-length", "0")])), ""),
        (says(Some(0), ok(vec![option("x-user", "a\nb")])), ""),
        (says(Some(0), ok(vec![HeaderValueOption::default()])), ""),
        (says(Some(0), ok(vec![HeaderValueOption { append_action: 9, ..option("x", "y") }])), ""),
    ] {
        assert_eq!(verdict(response.clone()), expected, "{response:?}");
    }
    let query = OkHttpResponse {
        query_parameters_to_set: vec![QueryParameter::default()],
        ..OkHttpResponse::default()
    };
    assert_eq!(verdict(says(Some(0), Some(HttpResponse::OkResponse(query)))), "");
}

#[test]
fn a_header_takes_the_place_of_the_clients_unless_it_says_otherwise() {
    for (append, action, expected) in [
        (None, HeaderAppendAction::AppendIfExistsOrAdd, How::Overwrite),
        (None, HeaderAppendAction::AddIfAbsent, How::AddIfAbsent),
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd, How::Overwrite),
        (None, HeaderAppendAction::OverwriteIfExists, How::OverwriteIfExists),
        (Some(true), HeaderAppendAction::OverwriteIfExists, How::Append),
        (Some(false), HeaderAppendAction::AddIfAbsent, How::Overwrite),
    ] {
        let option = HeaderValueOption { append, append_action: action.into(), ..option("x", "y") };
        assert_eq!(change(&option).unwrap().how, expected, "{append:?} {action:?}");
    }
    let ok = OkHttpResponse {
        headers: vec![option("X-User", "jane")],
        headers_to_remove: vec!["Authorization".into(), "host".into(), ":path".into()],
        response_headers_to_add: vec![option("x-seen", "1")],
        ..OkHttpResponse::default()
    };
    let changes = admission(&ok).unwrap();
    assert_eq!(changes.removed, [header::AUTHORIZATION]);
    assert_eq!(changes.request[0].name, "x-user");
    assert_eq!(changes.response[0].value, "1");
}

#[test]
fn what_is_no_call_that_ended_well_is_no_answer() {
    let good = framed(&says(Some(0), None));
    assert!(matches!(read(answered(200, &good, Some("0"))), Ok(Decision::Admit(_))));
    let compressed = [&[1][..], &good[1..]].concat();
    let two = [good.clone(), good.clone()].concat();
    for (status, message, code) in [
        (500, &good[..], Some("0")),
        (200, &good, Some("14")),
        (200, &good, None),
        (200, b"", Some("0")),
        (200, &good[..3], Some("0")),
        (200, &good[..good.len() - 1], Some("0")),
        (200, &compressed, Some("0")),
        (200, &two, Some("0")),
        (200, &[0, 0, 0, 0, 1, 0xff], Some("0")),
    ] {
        assert!(read(answered(status, message, code)).is_err(), "{status} {message:?} {code:?}");
    }
    let broken = Answered { body: Err(NoAnswer::Late), ..answered(200, b"", None) };
    assert!(read(broken).is_err());
}

#[test]
fn the_provider_sees_the_request_as_envoy_would_show_it() {
    let (parts, ()) = Request::post("/a%2Fb?c=d")
        .header("host", "cart:80")
        .header("x-request-id", "7")
        .header("x-many", "1")
        .header("x-many", "2")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("content-length", "5")
        .body(())
        .unwrap()
        .into_parts();
    let side = |address: &str, name: &str| (address.parse().unwrap(), format!("spiffe://td/ns/a/sa/{name}"));
    let sides = Sides { source: side("10.0.0.1:999", "web"), destination: side("10.0.0.2:80", "waypoint") };
    let shown = Shown { host: "cart:80".into(), body: Bytes::from_static(b"socks") };
    let framed = message(&parts, &sides, &shown, false);
    assert_eq!(framed[0], 0);
    let attributes = CheckRequest::decode(&framed[5..]).unwrap().attributes.unwrap();
    assert_eq!(attributes.source.unwrap().principal, "spiffe://td/ns/a/sa/web");
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.host.as_str()),
        ("POST", "/a%2Fb?c=d", "cart:80")
    );
    assert_eq!((http.size, http.body.as_str(), http.id.as_str()), (5, "socks", "7"));
    for (name, value) in
        [("x-many", "1,2"), ("cookie", "a=1; b=2"), (":path", "/a%2Fb?c=d"), (":authority", "cart:80")]
    {
        assert_eq!(http.headers[name], value);
    }
    let bytes = message(&parts, &sides, &shown, true);
    let attributes = CheckRequest::decode(&bytes[5..]).unwrap().attributes.unwrap();
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!((http.body.as_str(), &http.raw_body[..]), ("", &b"socks"[..]));
}
