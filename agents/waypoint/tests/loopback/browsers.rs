//! CORS: preflights are answered before authentication, and error responses carry CORS headers.

use std::time::Duration;

use ambit_model::{
    AppProtocol,
    bound::{Cors, Filter, Redirect},
};
use bytes::Bytes;
use http::{Request, Response, request::Builder};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{
    endpoint::{echo, http1},
    fixture::{Mesh, bound, deny_all, routed, rule, to},
    meaning::vouching,
};

const ORIGIN: &str = "https://app.example";

fn cors() -> Filter {
    Filter::Cors(Cors {
        allow_origins: vec![ORIGIN.into()],
        allow_credentials: false,
        allow_methods: vec!["PUT".into()],
        allow_headers: vec!["authorization".into()],
        expose_headers: Vec::new(),
        max_age: Duration::from_secs(5),
    })
}

async fn ask(mesh: &Mesh, request: Builder) -> Response<Incoming> {
    let request: Request<Full<Bytes>> = request.header("host", "cart").body(Full::default()).unwrap();
    mesh.http1().await.send_request(request).await.unwrap()
}

fn preflight(origin: &str) -> Builder {
    Request::options("/").header("origin", origin).header("access-control-request-method", "PUT")
}

fn allowed(response: &Response<Incoming>) -> Option<&str> {
    response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_preflight_is_answered_before_anybody_is_asked_for_a_token_and_refusals_can_be_read() {
    let mut open = rule(vec![to("cart", 1)]);
    open.filters = vec![cors()];
    let mut cart = routed(vec![open], &["cart"]);
    cart.authentication = vec![vouching()];
    cart.authorization = vec![deny_all("closed")];
    let mesh = Mesh::with_cart(cart, http1(echo("cart"))).await;
    let answer = ask(&mesh, preflight(ORIGIN)).await;
    assert_eq!((answer.status().as_u16(), allowed(&answer)), (204, Some(ORIGIN)));
    assert_eq!(answer.headers()["access-control-allow-headers"], "authorization");
    let other = ask(&mesh, preflight("https://other.example")).await;
    assert_eq!((other.status().as_u16(), allowed(&other)), (204, None));
    let get = || Request::get("/").header("origin", ORIGIN);
    let denied = ask(&mesh, get()).await;
    assert_eq!((denied.status().as_u16(), allowed(&denied)), (403, Some(ORIGIN)));
    let unknown = ask(&mesh, get().header("authorization", "Bearer a.b.c")).await;
    assert_eq!((unknown.status().as_u16(), allowed(&unknown)), (401, Some(ORIGIN)));
    // Without a requested method it is not a preflight.
    let options = ask(&mesh, Request::options("/").header("origin", ORIGIN)).await;
    assert_eq!(options.status().as_u16(), 403);
}

#[tokio::test]
async fn without_rules_for_it_a_preflight_is_a_request_as_any_other() {
    let mut cart = routed(vec![rule(vec![to("cart", 1)])], &["cart"]);
    cart.authorization = vec![deny_all("closed")];
    let mesh = Mesh::with_cart(cart, http1(echo("cart"))).await;
    let answer = ask(&mesh, preflight(ORIGIN)).await;
    assert_eq!((answer.status().as_u16(), allowed(&answer)), (403, None));
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), http1(echo("cart"))).await;
    assert_eq!(ask(&mesh, preflight(ORIGIN)).await.status().as_u16(), 200);
}

#[tokio::test]
async fn a_redirect_takes_the_clients_scheme_from_trusted_proxies_only() {
    for (trusts_forwarded_proto, scheme, expected) in [
        (true, Some("https"), "https://new.example/"),
        (true, Some("http"), "http://new.example/"),
        (true, None, "http://new.example/"),
        (false, Some("https"), "http://new.example/"),
    ] {
        let elsewhere = Redirect {
            scheme: None,
            hostname: Some("new.example".into()),
            path: None,
            port: None,
            status: 302,
            trusts_forwarded_proto,
        };
        let mut moved = rule(Vec::new());
        moved.filters = vec![Filter::Redirect(elsewhere)];
        let mesh = Mesh::with_cart(routed(vec![moved], &["cart"]), http1(echo("cart"))).await;
        let mut request = Request::get("/");
        if let Some(scheme) = scheme {
            request = request.header("x-forwarded-proto", scheme);
        }
        let answer = ask(&mesh, request).await;
        assert_eq!(answer.headers()["location"], expected, "{trusts_forwarded_proto} {scheme:?}");
    }
}
