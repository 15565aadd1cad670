//! WebSocket and other protocol upgrades.

use std::sync::Arc;

use ambit_model::{
    Action, AppProtocol, Clause, Match, NamespacedName, Policy, Rule, Scope, StringMatch,
    authorization::RequestMatch, bound::DestinationSettings,
};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    ext::Protocol,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    endpoint::Serve,
    fixture::{Mesh, bound, deny_all, destination},
};

/// Accepts the upgrade, and echoes what it receives.
fn switching() -> Serve {
    Arc::new(|tunnel| {
        let service = service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.headers()["upgrade"], "websocket");
            tokio::spawn(async move {
                let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..read]).await.unwrap();
                }
            });
            let response = Response::builder().status(101).header("connection", "upgrade");
            let response = response.header("upgrade", "websocket").header("sec-websocket-accept", "x");
            Ok::<_, std::convert::Infallible>(response.body(Full::<bytes::Bytes>::default()).unwrap())
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(tunnel), service).with_upgrades();
        tokio::spawn(async move { _ = serving.await });
    })
}

fn ask() -> Request<Full<bytes::Bytes>> {
    let request = Request::get("/ws").header("host", "cart").header("connection", "Upgrade");
    request.header("upgrade", "websocket").body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_switched_connection_carries_bytes_both_ways_until_policy_denies_it() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), switching()).await;
    let response = mesh.http1().await.send_request(ask()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], "x");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for word in [b"ping", b"pong"] {
        stream.write_all(word).await.unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, word);
    }
    let mut closed = bound(AppProtocol::Http);
    closed.authorization = vec![deny_all("nobody")];
    mesh.bind(closed).await;
    assert!(!matches!(stream.read(&mut [0; 4]).await, Ok(1..)));
}

#[tokio::test]
async fn only_a_websocket_switches_so_that_no_request_gets_past_its_judges() {
    let mesh =
        Mesh::with_cart(bound(AppProtocol::Http), super::endpoint::http1(super::endpoint::echo("cart")))
            .await;
    let request = Request::get("/").header("host", "cart").header("connection", "Upgrade, HTTP2-Settings");
    let request = request.header("upgrade", "h2c").header("http2-settings", "AAMAAABkAAQAAP__");
    let response = mesh.http1().await.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    let text = super::fixture::text(response).await;
    assert!(!text.contains("h2c") && !text.contains("http2-settings"), "{text}");
}

#[tokio::test]
async fn a_service_that_does_not_switch_answers_as_ever() {
    let mesh =
        Mesh::with_cart(bound(AppProtocol::Http), super::endpoint::http1(super::endpoint::echo("cart")))
            .await;
    let response = mesh.http1().await.send_request(ask()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// The same over HTTP/2.
fn switching_http2() -> Serve {
    Arc::new(|tunnel| {
        let service = service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
            tokio::spawn(async move {
                let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..read]).await.unwrap();
                }
            });
            Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::default()))
        });
        let mut server = http2::Builder::new(TokioExecutor::new());
        let serving = server.enable_connect_protocol().serve_connection(TokioIo::new(tunnel), service);
        tokio::spawn(async move { _ = serving.await });
    })
}

/// Requests a WebSocket over HTTP/2 (RFC 8441).
fn ask_http2(protocol: &'static str) -> Request<Full<bytes::Bytes>> {
    let request = Request::connect("http://cart/ws").header("sec-websocket-version", "13");
    request.extension(Protocol::from_static(protocol)).body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_websocket_over_http2_reaches_endpoints_of_either_version() {
    for (protocol, serve) in [(AppProtocol::Http, switching()), (AppProtocol::Http2, switching_http2())] {
        let mut bound = bound(AppProtocol::Http);
        let settings = DestinationSettings { protocol, ..DestinationSettings::default() };
        bound.destinations.insert(destination("cart"), settings);
        let mesh = Mesh::with_cart(bound.clone(), serve).await;
        let response = mesh.http2().await.send_request(ask_http2("websocket")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"ping").await.unwrap();
        let mut echoed = [0; 4];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"ping");
        // Policy sees it as the GET that it is, also later.
        bound.authorization = vec![gets_denied()];
        mesh.bind(bound).await;
        assert!(!matches!(stream.read(&mut [0; 4]).await, Ok(1..)));
        let response = mesh.http2().await.send_request(ask_http2("websocket")).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
}

fn gets_denied() -> Arc<Policy> {
    let request = RequestMatch { methods: vec![StringMatch::Exact("GET".into())], ..RequestMatch::default() };
    let matched = Match { request: Some(Box::new(request)), ..Match::default() };
    Arc::new(Policy {
        key: NamespacedName::new("shop", "closed"),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![matched] }] }],
        dry_run: false,
    })
}

#[tokio::test]
async fn a_client_is_not_told_that_it_has_switched_when_the_endpoint_has_not() {
    let mesh =
        Mesh::with_cart(bound(AppProtocol::Http), super::endpoint::http1(super::endpoint::echo("cart")))
            .await;
    let mut client = mesh.http2().await;
    let response = client.send_request(ask_http2("websocket")).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let response = client.send_request(ask_http2("connect-udp")).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}
