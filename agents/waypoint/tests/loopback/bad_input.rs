//! Clients and endpoints that violate protocols, and clients that request what does not exist.

use std::sync::Arc;

use ambit_hbone::TunnelStream;
use ambit_model::{AppProtocol, bound::Retry};
use ambit_store::BoundEntry;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Frame, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::{
    abuse::{self, DATA, END_HEADERS, RST_STREAM, frame},
    endpoint::{Count, Serve, echo, http1},
    fixture::{Mesh, PATIENCE, VIP, bound, key, out_at_once, routed, rule, to},
};

async fn answer(mesh: &Mesh, sent: &[u8]) -> String {
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(sent).await.unwrap();
    let mut heard = Vec::new();
    // A reset ends it as well.
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
    mesh.silent.store(true, std::sync::atomic::Ordering::Relaxed);
    let refused = mesh.tunnel("10.0.0.201:80").await.unwrap_err().to_string();
    assert_eq!(refused, "http status: 503", "nobody says what it is");
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
    // A request that two parsers could read differently is rejected, not forwarded.
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
    let failing = move |request: Request<Bytes>| {
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

/// Sends these bytes as soon as it receives something, and resets when `go` permits.
fn breaking_off(sent: impl Into<Vec<u8>>, tries: Count, go: Arc<Semaphore>) -> Serve {
    let sent = Arc::new(sent.into());
    Arc::new(move |mut tunnel: TunnelStream| {
        let (sent, tries, go) = (sent.clone(), tries.clone(), go.clone());
        tokio::spawn(async move {
            _ = tunnel.read(&mut [0; 1024]).await;
            tries.one_more();
            _ = tunnel.write_all(&sent).await;
            go.acquire().await.unwrap().forget();
        });
    })
}

/// A semaphore that permits at once.
fn now() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))
}

/// The same over HTTP/2, after half of a response.
fn breaking_off_http2(tries: Count, go: Arc<Semaphore>) -> Serve {
    Arc::new(move |tunnel| {
        let (tries, go) = (tries.clone(), go.clone());
        let service = service_fn(move |_request| {
            tries.one_more();
            let go = go.clone();
            let half = stream::once(async { Ok(Frame::data(Bytes::from("half"))) });
            let reset = stream::once(async move {
                go.acquire().await.unwrap().forget();
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            });
            let body = StreamBody::new(Box::pin(half.chain(reset)));
            async { Ok::<_, std::convert::Infallible>(Response::new(body)) }
        });
        let server = conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(tunnel), service));
    })
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_tried_again_once_a_byte_went_out() {
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    for protocol in [AppProtocol::Http, AppProtocol::Http2] {
        let (tries, go) = (Count::default(), Arc::new(Semaphore::new(0)));
        let half = if protocol == AppProtocol::Http2 {
            breaking_off_http2(tries.clone(), go.clone())
        } else {
            breaking_off(HALF, tries.clone(), go.clone())
        };
        let mut mesh = Mesh::start();
        mesh.service("cart", VIP);
        mesh.endpoint("cart", half).await;
        let mut retried = rule(vec![to("cart", 1)]);
        retried.retry = Some(Retry { codes: vec![503], attempts: 3, backoff: None });
        let mut routed = routed(vec![retried], &["cart"]);
        routed.destinations.values_mut().for_each(|settings| settings.protocol = protocol);
        mesh.bind(routed).await;
        let request = Request::get("http://cart/").body(Full::default()).unwrap();
        let response = mesh.http2().await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        go.add_permits(8);
        let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap();
        assert!(body.is_err(), "half a response must not pass for all of it: {protocol:?}");
        assert_eq!(tries.get(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_before_its_answer_is_tried_again_only_where_the_route_says_so() {
    let tries = Count::default();
    let mut mesh = Mesh::start();
    mesh.service("cart", VIP);
    mesh.endpoint("cart", breaking_off(b"", tries.clone(), now())).await;
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
async fn an_endpoint_whose_answer_is_too_large_to_read_or_none_at_all_is_503() {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(70 << 10));
    for sent in [large.as_bytes(), b"220 smtp.example ESMTP\r\n"] {
        let serve = breaking_off(sent, Count::default(), Arc::new(Semaphore::new(0)));
        let mesh = Mesh::with_cart(bound(AppProtocol::Http), serve).await;
        assert_eq!(mesh.get("/").await.0, 503);
    }
}

/// Reports every byte that it receives, then whether the stream was complete.
pub(super) fn listening(told: mpsc::UnboundedSender<Result<Vec<u8>, bool>>) -> Serve {
    Arc::new(move |mut tunnel: TunnelStream| {
        let told = told.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            let is_whole = loop {
                match tunnel.read(&mut buffer).await {
                    Ok(0) => break true,
                    Ok(read) => told.send(Ok(buffer[..read].to_vec())).unwrap(),
                    Err(_) => break false,
                }
            };
            told.send(Err(is_whole)).unwrap();
        });
    })
}

#[tokio::test]
async fn what_surrounds_a_body_is_limited_though_the_body_is_not() {
    let large = "y".repeat(70 << 10);
    for (name, rest) in [
        ("an extension of a chunk", format!("4;{large}\r\nhalf\r\n0\r\n\r\n")),
        ("a trailer", format!("4\r\nhalf\r\n0\r\nx: {large}\r\n\r\n")),
        ("the size of a chunk", format!("{}\r\nhalf\r\n0\r\n\r\n", "f".repeat(17))),
    ] {
        let (told, mut heard) = mpsc::unbounded_channel();
        let mesh = Mesh::with_cart(bound(AppProtocol::Http), listening(told)).await;
        let sent = format!("POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n{rest}");
        let answered = answer(&mesh, sent.as_bytes()).await;
        assert!(answered.starts_with("HTTP/1.1 400 "), "{name}: {answered}");
        let is_whole = async {
            loop {
                if let Err(is_whole) = heard.recv().await.unwrap() {
                    return is_whole;
                }
            }
        };
        assert!(
            !timeout(PATIENCE, is_whole).await.expect(name),
            "{name}: a part must not pass for all of it"
        );
    }
}

#[tokio::test]
async fn a_client_whose_body_is_none_has_no_endpoint_ejected_for_it() {
    const BROKEN: &[u8] =
        b"POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n";
    for attempts in [0, 2] {
        let tries = Count::default();
        let counted = tries.clone();
        let serve = move |request: Request<Bytes>| {
            counted.one_more();
            echo("cart")(request)
        };
        let mut retried = rule(vec![to("cart", 1)]);
        retried.retry = Some(Retry { codes: vec![503], attempts, backoff: None });
        let mut routed = routed(vec![retried], &["cart"]);
        for settings in routed.destinations.values_mut() {
            Arc::make_mut(&mut settings.policy).outliers = Some(out_at_once());
        }
        let mesh = Mesh::with_cart(routed, http1(serve)).await;
        assert!(answer(&mesh, BROKEN).await.starts_with("HTTP/1.1 400 "));
        assert!(tries.get() <= 1, "what is not whole is not sent again");
        assert_eq!(mesh.get("/").await.0, 200);
        assert_eq!(mesh.shared.sinks.metrics.ejections.get(), 0);
    }
}

#[tokio::test]
async fn a_client_that_dies_in_the_middle_of_its_body_takes_its_request_with_it() {
    const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'a'];
    let half = [abuse::opening(POST, END_HEADERS), frame(DATA, 0, 1, b"half")].concat();
    let reset = frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    let http1 = b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    for (name, sent, last) in
        [("HTTP/1.1", http1, None), ("HTTP/2", half.clone(), None), ("HTTP/2, reset", half, Some(reset))]
    {
        let (told, mut heard) = mpsc::unbounded_channel();
        let mesh = Mesh::with_cart(bound(AppProtocol::Http), listening(told)).await;
        let mut tunnel = mesh.tunnel(VIP).await.unwrap();
        tunnel.write_all(&sent).await.unwrap();
        let mut text = Vec::new();
        // Before the endpoint has received a part, there is nothing to interrupt.
        while !String::from_utf8_lossy(&text).contains("half") {
            text.extend(timeout(PATIENCE, heard.recv()).await.unwrap().unwrap().expect("more"));
        }
        match last {
            Some(last) => tunnel.write_all(&last).await.unwrap(),
            None => drop(tunnel),
        }
        let ended = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(ended, Err(false), "{name}: half a body must not pass for all of it");
    }
}
