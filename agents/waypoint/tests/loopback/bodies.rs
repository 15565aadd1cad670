//! Request bodies: they arrive completely or not at all, as do their copies, and their errors are
//! blamed on the client.

use std::{sync::Arc, time::Duration};

use ambit_hbone::TunnelStream;
use ambit_model::{
    AppProtocol,
    bound::{Filter, Mirror, RequestTimeouts},
};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::{
    bad_input::listening,
    endpoint::{Serve, echo, http1, http2},
    fixture::{Mesh, PATIENCE, VIP, bound, destination, out_at_once, routed, rule, text, to},
};

async fn read(tunnel: &mut TunnelStream) -> String {
    let mut heard = Vec::new();
    timeout(PATIENCE, tunnel.read_to_end(&mut heard)).await.unwrap().unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

/// The service `cart`, mirrored to `copy`.
async fn mirrored(cart: Serve, copy: Serve, timeouts: RequestTimeouts) -> Mesh {
    let mut mesh = Mesh::start();
    for (name, vip) in [("cart", VIP), ("copy", "10.0.0.4:80")] {
        mesh.service(name, vip);
    }
    mesh.endpoint("cart", cart).await;
    mesh.endpoint("copy", copy).await;
    let mut both = rule(vec![to("cart", 1)]);
    both.filters = vec![Filter::Mirror(Mirror { to: destination("copy"), fraction: None })];
    both.timeouts = timeouts;
    let mut routed = routed(vec![both], &["cart", "copy"]);
    for settings in routed.destinations.values_mut() {
        Arc::make_mut(&mut settings.policy).outliers = Some(out_at_once());
    }
    mesh.bind(routed).await;
    mesh
}

/// Reports the requests that arrive.
fn telling(
    told: mpsc::UnboundedSender<Request<Bytes>>,
) -> impl Fn(Request<Bytes>) -> Response<String> + Clone {
    move |request| {
        told.send(request).unwrap();
        Response::new("done".to_owned())
    }
}

async fn heard<T>(from: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(PATIENCE, from.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_body_in_chunks_arrives_whatever_the_method() {
    let (told, mut arrived) = mpsc::unbounded_channel();
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), http1(telling(told))).await;
    for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "SEARCH"] {
        let mut tunnel = mesh.tunnel(VIP).await.unwrap();
        let head = format!("{method} /_search HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n");
        tunnel.write_all(head.as_bytes()).await.unwrap();
        tunnel.write_all(b"5\r\nquery\r\n3\r\n-it\r\n0\r\n\r\n").await.unwrap();
        let request = heard(&mut arrived).await;
        assert_eq!((request.method().as_str(), &request.body()[..]), (method, &b"query-it"[..]));
    }
    let request = Request::get("http://cart/").body(Full::from("of http2")).unwrap();
    mesh.http2().await.send_request(request).await.unwrap();
    assert_eq!(heard(&mut arrived).await.body(), "of http2");
    // A request without a body stays without one.
    mesh.get("/").await;
    let request = heard(&mut arrived).await;
    assert!(!request.headers().contains_key("transfer-encoding"), "{request:?}");
}

#[tokio::test]
async fn a_client_that_has_said_all_it_has_to_say_still_gets_its_answer() {
    let go = Arc::new(Semaphore::new(0));
    let waiting = go.clone();
    let slow: Serve = Arc::new(move |mut tunnel: TunnelStream| {
        let go = waiting.clone();
        tokio::spawn(async move {
            _ = tunnel.read(&mut [0; 1024]).await;
            go.acquire().await.unwrap().forget();
            tunnel.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await.unwrap();
            _ = tunnel.read(&mut [0; 1]).await;
        });
    });
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), slow).await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.unwrap();
    tunnel.shutdown().await.unwrap();
    go.add_permits(1);
    let answer = read(&mut tunnel).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("late"), "{answer}");
}

#[tokio::test]
async fn a_client_that_is_gone_takes_its_request_with_it() {
    let (told, mut arrived) = mpsc::unbounded_channel();
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), listening(told)).await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.unwrap();
    assert!(heard(&mut arrived).await.is_ok(), "the request is there");
    drop(tunnel);
    while heard(&mut arrived).await.is_ok() {}
}

#[tokio::test]
async fn a_copy_has_all_of_a_body_however_large() {
    const PIECE: usize = 128 << 10;
    let (told, mut copies) = mpsc::unbounded_channel();
    let none = RequestTimeouts::default();
    let mesh =
        mirrored(http1(|request| Response::new(request.body().len().to_string())), listening(told), none)
            .await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    let length = PIECE * 20;
    let head =
        format!("POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    tunnel.write_all(head.as_bytes()).await.unwrap();
    let mut copied = Vec::new();
    for piece in 1..=20 {
        tunnel.write_all(&[b'b'; PIECE]).await.unwrap();
        // The copy keeps up, so nothing of it is dropped.
        while copied.iter().filter(|byte| **byte == b'b').count() < PIECE * piece {
            copied.extend(heard(&mut copies).await.expect("more"));
        }
    }
    assert!(read(&mut tunnel).await.ends_with(&length.to_string()));
    let head = String::from_utf8_lossy(&copied[..200]).into_owned();
    assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
}

#[tokio::test]
async fn a_copy_that_is_too_slow_is_lost_and_counted_and_holds_nobody_up() {
    let deaf: Serve = Arc::new(|tunnel: TunnelStream| {
        tokio::spawn(async move {
            let _held = tunnel;
            std::future::pending::<()>().await;
        });
    });
    let none = RequestTimeouts::default();
    let mesh = mirrored(http1(|request| Response::new(request.body().len().to_string())), deaf, none).await;
    let body = Full::from(vec![b'a'; 16 << 20]);
    let request = Request::post("/").header("host", "cart").body(body).unwrap();
    let response = mesh.http1().await.send_request(request).await.unwrap();
    assert_eq!(text(response).await, (16 << 20).to_string());
    let counted = async {
        while mesh.shared.sinks.metrics.copies_failed.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, counted).await.unwrap();
    assert_eq!(mesh.shared.sinks.metrics.ejections.get(), 0);
}

#[tokio::test]
async fn a_copy_of_grpc_is_http2_as_its_original() {
    let (told, mut copies) = mpsc::unbounded_channel();
    let mesh = mirrored(http2(echo("cart")), http2(telling(told)), RequestTimeouts::default()).await;
    let request = Request::post("http://cart/shop.Cart/Get").header("content-type", "application/grpc+proto");
    let request = request.header("te", "trailers").body(Full::from("message")).unwrap();
    mesh.http2().await.send_request(request).await.unwrap();
    let copy = heard(&mut copies).await;
    assert_eq!((copy.version(), &copy.body()[..]), (Version::HTTP_2, &b"message"[..]));
    assert_eq!(copy.headers()["te"], "trailers");
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_no_endpoints_fault_and_no_copys() {
    let limits = RequestTimeouts { request: None, backend: Some(Duration::from_millis(100)) };
    let (told, mut copies) = mpsc::unbounded_channel();
    let mesh = mirrored(http1(echo("cart")), http1(telling(told)), limits).await;
    let chunked = "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (name, rest, status) in [("malformed", "x\r\n", "400"), ("not ending", "", "504")] {
        let mut tunnel = mesh.tunnel(VIP).await.unwrap();
        tunnel.write_all(format!("{chunked}{rest}").as_bytes()).await.unwrap();
        let mut begin = [0; 12];
        timeout(PATIENCE, tunnel.read_exact(&mut begin)).await.unwrap().unwrap();
        assert_eq!(begin, *format!("HTTP/1.1 {status}").as_bytes(), "{name}");
    }
    assert_eq!(mesh.get("/good").await.0, 200);
    // The other copies were never complete, even if parts of them arrived.
    while heard(&mut copies).await.uri().path() != "/good" {}
    assert_eq!(mesh.shared.sinks.metrics.ejections.get(), 0);
}
