//! Clients and endpoints that break the rules, and clients that ask for what is not here.

use std::{sync::Arc, time::Duration};

use ambit_hbone::TunnelStream;
use ambit_model::{AppProtocol, NamespacedName, bound::Retry};
use ambit_store::BoundEntry;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    endpoint::{Count, Serve, echo, http1},
    fixture::{Mesh, PATIENCE, VIP, bound, key, routed, rule, to},
};

async fn answer(mesh: &Mesh, sent: &[u8]) -> String {
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(sent).await.unwrap();
    let mut heard = Vec::new();
    // A reset ends it as well as an end does.
    _ = timeout(PATIENCE, tunnel.read_to_end(&mut heard)).await.unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

async fn cart() -> Mesh {
    Mesh::with_cart(bound(AppProtocol::Http), http1(echo("cart"))).await
}

#[tokio::test]
async fn a_connect_to_what_is_not_bound_here_is_refused() {
    let mesh = Mesh::start();
    assert_eq!(mesh.tunnel(VIP).await.unwrap_err().to_string(), "http status: 503", "before the first sync");
    mesh.service("cart", VIP);
    mesh.service("other", "10.0.0.9:80");
    mesh.bind(bound(AppProtocol::Http)).await;
    let cases = [
        ("10.0.0.9:80", "404"),
        ("10.0.0.200:80", "404"),
        ("10.0.0.1:81", "404"),
        ("cart.shop.svc.cluster.local:81", "404"),
        ("other.shop.svc.cluster.local:80", "404"),
    ];
    for (authority, status) in cases {
        let refused = mesh.tunnel(authority).await.unwrap_err().to_string();
        assert_eq!(refused, format!("http status: {status}"), "{authority}");
    }
    assert!(mesh.tunnel("cart.shop.svc.cluster.local:80").await.is_ok());
    let unreadable = BoundEntry::Unreadable("field 7: unknown".into());
    mesh.shared.store.apply_bound(vec![(key("cart"), unreadable)], &[]);
    timeout(PATIENCE, async { while mesh.tunnel(VIP).await.is_ok() {} }).await.unwrap();
    assert_eq!(mesh.tunnel(VIP).await.unwrap_err().to_string(), "http status: 503");
}

#[tokio::test]
async fn heads_that_are_too_large_are_431_and_no_http_at_all_is_400() {
    let mesh = cart().await;
    let large = format!("GET / HTTP/1.1\r\nhost: cart\r\nx: {}\r\n\r\n", "a".repeat(61 << 10));
    assert!(answer(&mesh, large.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: cart\r\n{many}\r\n");
    assert!(answer(&mesh, many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    assert!(answer(&mesh, b"\x16\x03\x01 nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    // What two parsers may read differently is refused, not passed on.
    let smuggled = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 9\r\n\r\nabcd";
    assert!(answer(&mesh, smuggled).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(mesh.get("/").await.0, 200);
}

#[tokio::test]
async fn an_application_may_not_tunnel_through_a_waypoint() {
    let mesh = cart().await;
    let refused =
        answer(&mesh, b"CONNECT other:22 HTTP/1.1\r\nhost: other:22\r\nconnection: close\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
}

#[tokio::test]
async fn a_large_body_flows_through_though_it_cannot_be_repeated() {
    let tries = Count::default();
    let counted = tries.clone();
    let failing = move |request: Request<bytes::Bytes>| {
        counted.one_more();
        Response::builder().status(503).body(request.body().len().to_string()).unwrap()
    };
    let mut mesh = Mesh::start();
    mesh.service("cart", VIP);
    mesh.endpoint("cart", http1(failing)).await;
    let mut retried = rule(vec![to("cart", 1)]);
    retried.retry = Some(Retry { codes: vec![503], attempts: 3, backoff: None });
    mesh.bind(routed(vec![retried], &["cart"])).await;
    let body = Full::from(vec![b'a'; 1 << 20]);
    let request = Request::post("/").header("host", "cart").body(body).unwrap();
    let response = mesh.http1().await.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), super::fixture::text(response).await.as_str()), (503, "1048576"));
    assert_eq!(tries.get(), 1);
}

/// Sends these bytes as soon as it hears something, and breaks off.
fn breaking_off(sent: &'static [u8], tries: Count) -> Serve {
    Arc::new(move |mut tunnel: TunnelStream| {
        let tries = tries.clone();
        tokio::spawn(async move {
            _ = tunnel.read(&mut [0; 1024]).await;
            tries.one_more();
            _ = tunnel.write_all(sent).await;
            if !sent.is_empty() {
                // Read before the reset overtakes it.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    })
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_tried_again_once_a_byte_went_out() {
    let tries = Count::default();
    let half = breaking_off(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", tries.clone());
    let mut mesh = Mesh::start();
    mesh.service("cart", VIP);
    mesh.endpoint("cart", half).await;
    let mut retried = rule(vec![to("cart", 1)]);
    retried.retry = Some(Retry { codes: vec![503], attempts: 3, backoff: None });
    mesh.bind(routed(vec![retried], &["cart"])).await;
    let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
    let response = mesh.http1().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(timeout(PATIENCE, response.into_body().collect()).await.unwrap().is_err());
    assert_eq!(tries.get(), 1);
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_before_its_answer_is_tried_again_only_where_the_route_says_so() {
    let tries = Count::default();
    let mut mesh = Mesh::start();
    mesh.service("cart", VIP);
    mesh.endpoint("cart", breaking_off(b"", tries.clone())).await;
    mesh.bind(bound(AppProtocol::Http)).await;
    let (status, text) = mesh.get("/").await;
    assert!(status == 503 && text.ends_with("connection termination"), "{text}");
    assert_eq!(tries.get(), 1);
    let mut retried = rule(vec![to("cart", 1)]);
    retried.retry = Some(Retry { codes: Vec::new(), attempts: 2, backoff: None });
    mesh.bind(routed(vec![retried], &["cart"])).await;
    assert_eq!(mesh.get("/").await.0, 503);
    assert_eq!(tries.get(), 4);
}

#[tokio::test]
async fn a_client_that_dies_in_the_middle_of_its_body_takes_its_request_with_it() {
    let (ended, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let recording: Serve = Arc::new(move |mut tunnel: TunnelStream| {
        let ended = ended.clone();
        tokio::spawn(async move {
            let mut heard = Vec::new();
            let result = tunnel.read_to_end(&mut heard).await;
            ended.send((heard, result.is_err())).unwrap();
        });
    });
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), recording).await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
    // Until the endpoint has a part of it, there is nothing to take away.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(tunnel);
    let (heard, broke_off) = timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
    assert!(broke_off, "the endpoint must not take half a body for all of it");
    assert!(heard.ends_with(b"half"), "{}", String::from_utf8_lossy(&heard));
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// HPACK: indexed `:method: GET`, `:scheme: http`, `:path: /`, and `:authority: a`.
const HEAD: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

/// Whether the waypoint says GOAWAY, or ends the tunnel.
async fn is_sent_away(mesh: &Mesh, sent: &[u8]) -> bool {
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    // The waypoint may end it before all is written.
    _ = tunnel.write_all(sent).await;
    let mut heard = Vec::new();
    _ = timeout(Duration::from_secs(20), tunnel.read_to_end(&mut heard)).await;
    let mut rest = heard.as_slice();
    while let [a, b, c, kind, _, _, _, _, _, tail @ ..] = rest {
        if *kind == 7 {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = tail.get(length..).unwrap_or_default();
    }
    heard.is_empty()
}

#[tokio::test]
async fn abuse_of_http2_ends_its_tunnel_and_no_other() {
    let mesh = cart().await;
    let mut rapid_reset = PREFACE.to_vec();
    for stream in (1..2000).step_by(2) {
        rapid_reset.extend(frame(1, 0x5, stream, HEAD));
        rapid_reset.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    assert!(is_sent_away(&mesh, &rapid_reset).await, "rapid reset");
    let mut flood = PREFACE.to_vec();
    flood.extend(frame(1, 0x1, 1, HEAD));
    for _ in 0..2000 {
        flood.extend(frame(9, 0, 1, &[0x00, 0x01, b'x', 0x01, b'y']));
    }
    assert!(is_sent_away(&mesh, &flood).await, "CONTINUATION flood");
    // One entry of the dynamic table, then a thousand references to it in each of many frames.
    let mut bomb = PREFACE.to_vec();
    let mut block = HEAD.to_vec();
    block.extend([0x40, 0x01, b'x', 0x7f, 0x80, 0x1e]);
    block.extend(vec![b'y'; 127 + 0xf00]);
    block.extend(vec![0xbe; 10_000]);
    bomb.extend(frame(1, 0x5, 1, &block));
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    _ = tunnel.write_all(&bomb).await;
    tunnel.shutdown().await.unwrap();
    let mut heard = Vec::new();
    _ = timeout(PATIENCE, tunnel.read_to_end(&mut heard)).await.unwrap();
    assert!(!String::from_utf8_lossy(&heard).contains("cart HTTP"), "HPACK bomb");
    assert_eq!(mesh.get("/").await.0, 200);
    assert_ne!(key("cart"), NamespacedName::new("shop", "other"));
}
