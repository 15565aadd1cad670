//! WebSocket and the like.

use std::sync::Arc;

use ambit_model::{Action, AppProtocol, NamespacedName, Policy, Rule, Scope};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    endpoint::Serve,
    fixture::{Mesh, bound},
};

/// Switches, and sends back what it gets.
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
    closed.authorization = vec![Arc::new(Policy {
        key: NamespacedName::new("shop", "nobody"),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule::default()],
        dry_run: false,
    })];
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
