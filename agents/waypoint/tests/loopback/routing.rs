//! Routing and filters.

use std::{sync::Arc, time::Duration};

use ambit_model::{
    AppProtocol,
    bound::{
        Backend, DestinationPolicy, DestinationSettings, Filter, Fraction, HeaderChange, HttpMatch,
        HttpTable, Mirror, PathMatch, RequestTimeouts, Retry, Routes, WeightedBackend,
    },
};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};

use super::{
    endpoint::{Count, echo, http1, http2},
    fixture::{Mesh, bound, destination, key, routed, rule, table, text, to},
};

#[tokio::test]
async fn a_request_without_routes_reaches_the_service_and_keeps_its_host() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), http1(echo("cart"))).await;
    let mut client = mesh.http1().await;
    for _ in 0..3 {
        let request = Request::post("/items?page=2").header("host", "cart:80").header("connection", "x-mine");
        let request = request.header("x-mine", "1").body(Full::from("socks")).unwrap();
        let text = text(client.send_request(request).await.unwrap()).await;
        assert!(text.starts_with("cart HTTP/1.1 POST /items?page=2\n"), "{text}");
        assert!(text.contains("host: cart:80\n") && text.ends_with("socks"), "{text}");
        assert!(text.contains("x-forwarded-proto: http\n") && !text.contains("x-mine"), "{text}");
    }
}

#[tokio::test]
async fn http2_clients_reach_http1_servers_and_the_other_way_round() {
    for protocol in [AppProtocol::Http, AppProtocol::Detect, AppProtocol::Http2] {
        let mesh = Mesh::with_cart(bound(protocol), http1(echo("cart"))).await;
        let request = Request::get("http://cart/").body(Full::default()).unwrap();
        let text = text(mesh.http2().await.send_request(request).await.unwrap()).await;
        assert!(text.starts_with("cart HTTP/1.1 GET /\n") && text.contains("host: cart\n"), "{text}");
    }
    let mut h2 = bound(AppProtocol::Http);
    let settings = DestinationSettings { protocol: AppProtocol::Http2, ..DestinationSettings::default() };
    h2.destinations.insert(destination("cart"), settings);
    let mesh = Mesh::with_cart(h2, http2(echo("cart"))).await;
    let (status, text) = mesh.get("/a").await;
    assert_eq!((status, text.lines().next().unwrap()), (200, "cart HTTP/2.0 GET http://cart/a"));
}

#[tokio::test]
async fn a_grpc_request_is_carried_by_http2_whatever_the_port_says() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), http2(echo("cart"))).await;
    let request = Request::post("http://cart/shop.Cart/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from("message"))
        .unwrap();
    let response = mesh.http2().await.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let text = text(response).await;
    assert!(text.starts_with("cart HTTP/2.0 POST") && text.contains("te: trailers"), "{text}");
}

#[tokio::test]
async fn weights_split_and_zero_takes_nothing() {
    let mut mesh = Mesh::start();
    for (name, vip) in [("cart", "10.0.0.1:80"), ("v1", "10.0.0.2:80"), ("v2", "10.0.0.3:80")] {
        mesh.service(name, vip);
    }
    mesh.endpoint("v1", http1(echo("v1"))).await;
    mesh.endpoint("v2", http1(echo("v2"))).await;
    mesh.bind(routed(vec![rule(vec![to("v1", 0), to("v2", 3)])], &["v1", "v2"])).await;
    for _ in 0..5 {
        assert!(mesh.get("/").await.1.starts_with("v2 "));
    }
    mesh.bind(routed(vec![rule(vec![to("v1", 0), to("v2", 0)])], &["v1", "v2"])).await;
    assert_eq!(mesh.get("/").await.0, 500);
}

#[tokio::test]
async fn what_no_rule_takes_is_404_and_an_invalid_backend_500_on_its_rule_only() {
    let mut mesh = Mesh::start();
    mesh.service("cart", "10.0.0.1:80");
    mesh.endpoint("cart", http1(echo("cart"))).await;
    let mut bound = routed(Vec::new(), &["cart"]);
    let path = |path: &str| HttpMatch { path: PathMatch::Prefix(path.into()), ..HttpMatch::default() };
    let rules = vec![rule(vec![to("cart", 1)]), rule(vec![nowhere()])];
    bound.ports[0].routes = Routes {
        http: Some(Arc::new(HttpTable { matches: vec![(path("/good"), 0), (path("/bad"), 1)], rules })),
        ..Routes::default()
    };
    mesh.bind(bound).await;
    assert_eq!(mesh.get("/good").await.0, 200);
    assert_eq!(mesh.get("/bad").await.0, 500);
    assert_eq!(mesh.get("/other").await.0, 404);
}

fn nowhere() -> WeightedBackend {
    let backend = Backend::Invalid("service shop/gone does not exist".into());
    WeightedBackend { weight: 1, backend, filters: Vec::new() }
}

#[tokio::test]
async fn routes_of_the_clients_namespace_replace_those_of_the_service() {
    let mut mesh = Mesh::start();
    for (name, vip) in [("cart", "10.0.0.1:80"), ("v2", "10.0.0.3:80")] {
        mesh.service(name, vip);
    }
    mesh.endpoint("cart", http1(echo("cart"))).await;
    mesh.endpoint("v2", http1(echo("v2"))).await;
    let mut bound = routed(vec![rule(vec![to("cart", 1)])], &["cart", "v2"]);
    bound.ports[0].consumers.insert("shop".into(), table(vec![rule(vec![to("v2", 1)])]));
    mesh.bind(bound).await;
    assert!(mesh.get("/").await.1.starts_with("v2 "));
    let mut other = mesh.http1_of(&super::fixture::identity("bank", "till")).await;
    let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
    assert!(text(other.send_request(request).await.unwrap()).await.starts_with("cart "));
}

#[tokio::test]
async fn filters_change_request_and_response_and_a_mirror_gets_a_copy() {
    let mut mesh = Mesh::start();
    for (name, vip) in [("cart", "10.0.0.1:80"), ("copy", "10.0.0.3:80")] {
        mesh.service(name, vip);
    }
    mesh.endpoint("cart", http1(echo("cart"))).await;
    let (seen, mut copies) = tokio::sync::mpsc::unbounded_channel();
    let record = move |request: Request<bytes::Bytes>| {
        seen.send(request.map(|body| String::from_utf8(body.to_vec()).unwrap())).unwrap();
        Response::new("ignored".to_owned())
    };
    mesh.endpoint("copy", http1(record)).await;
    let set = |name: &str, value: &str| HeaderChange {
        set: vec![(name.into(), value.into())],
        ..HeaderChange::default()
    };
    let mut changed = rule(vec![to("cart", 1)]);
    changed.filters = vec![
        Filter::RequestHeaders(set("x-asked", "1")),
        Filter::ResponseHeaders(set("x-told", "2")),
        Filter::Mirror(Mirror { to: destination("copy"), fraction: None }),
        Filter::Mirror(Mirror {
            to: destination("copy"),
            fraction: Some(Fraction { numerator: 0, denominator: 100 }),
        }),
    ];
    mesh.bind(routed(vec![changed], &["cart", "copy"])).await;
    let request = Request::post("/pay").header("host", "cart").body(Full::from("coin")).unwrap();
    let response = mesh.http1().await.send_request(request).await.unwrap();
    assert_eq!(response.headers()["x-told"], "2");
    assert!(text(response).await.contains("x-asked: 1\n"));
    let copy = copies.recv().await.unwrap();
    assert_eq!((copy.uri().path(), copy.body().as_str()), ("/pay", "coin"));
    assert!(copies.try_recv().is_err());
}

#[tokio::test]
async fn a_retry_repeats_the_body_and_hides_the_failure() {
    let tries = Count::default();
    let flaky = {
        let tries = tries.clone();
        move |request: Request<bytes::Bytes>| {
            let failed = tries.one_more() < 2;
            let mut response = Response::new(String::from_utf8(request.body().to_vec()).unwrap());
            if failed {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
    };
    let mut mesh = Mesh::start();
    mesh.service("cart", "10.0.0.1:80");
    mesh.endpoint("cart", http1(flaky)).await;
    let mut retried = rule(vec![to("cart", 1)]);
    retried.retry = Some(Retry { codes: vec![503], attempts: 3, backoff: Some(Duration::from_millis(1)) });
    mesh.bind(routed(vec![retried], &["cart"])).await;
    let request = Request::post("/pay").header("host", "cart").body(Full::from("coin")).unwrap();
    let response = mesh.http1().await.send_request(request).await.unwrap();
    assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::OK, "coin"));
    assert_eq!(tries.get(), 3);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_passed_over_and_none_at_all_is_503() {
    let mut mesh = Mesh::start();
    mesh.service("cart", "10.0.0.1:80");
    mesh.bind(bound(AppProtocol::Http)).await;
    assert_eq!(mesh.get("/").await, (503, "no healthy upstream".to_owned()));
    mesh.dead_endpoint("cart");
    mesh.endpoint("cart", http1(echo("cart"))).await;
    mesh.bind(bound(AppProtocol::Http)).await;
    for _ in 0..8 {
        assert_eq!(mesh.get("/").await.0, 200);
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_504() {
    let silent = Arc::new(|tunnel: ambit_hbone::TunnelStream| {
        tokio::spawn(async move {
            let _open = tunnel;
            std::future::pending::<()>().await;
        });
    });
    let mut mesh = Mesh::start();
    mesh.service("cart", "10.0.0.1:80");
    mesh.endpoint("cart", silent).await;
    let mut hasty = rule(vec![to("cart", 1)]);
    hasty.timeouts = RequestTimeouts { request: Some(Duration::from_millis(50)), backend: None };
    mesh.bind(routed(vec![hasty], &["cart"])).await;
    assert_eq!(mesh.get("/").await, (504, "upstream request timeout".to_owned()));
}

#[tokio::test]
async fn beyond_the_limit_of_requests_the_answer_is_503_at_once() {
    let mut mesh = Mesh::start();
    mesh.service("cart", "10.0.0.1:80");
    mesh.endpoint("cart", http1(echo("cart"))).await;
    let mut limited = bound(AppProtocol::Http);
    let policy = DestinationPolicy {
        breaker: ambit_model::bound::CircuitBreaker {
            max_requests: Some(0),
            ..ambit_model::bound::CircuitBreaker::default()
        },
        ..DestinationPolicy::default()
    };
    let settings = DestinationSettings { protocol: AppProtocol::Http, policy: policy.into() };
    limited.destinations.insert(destination("cart"), settings);
    mesh.bind(limited).await;
    let (status, text) = mesh.get("/").await;
    assert_eq!(status, 503);
    assert!(text.ends_with("overflow"), "{text}");
    assert_eq!(mesh.shared.services.load().get(&key("cart")).unwrap().bound.ports.len(), 1);
}

/// A message and trailers.
fn grpc_service() -> super::endpoint::Serve {
    use http_body::Frame;
    Arc::new(|tunnel| {
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            let asked = request.into_body().collect().await.unwrap();
            let said = asked.trailers().is_some_and(|trailers| trailers["x-said"] == "all");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", if said { "0" } else { "3" }.parse().unwrap());
            let frames = [
                Ok::<_, std::convert::Infallible>(Frame::data(asked.to_bytes())),
                Ok(Frame::trailers(trailers)),
            ];
            let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
            let response = Response::builder().header("content-type", "application/grpc").body(body);
            Ok::<_, std::convert::Infallible>(response.unwrap())
        });
        let serving = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let io = hyper_util::rt::TokioIo::new(tunnel);
        tokio::spawn(async move { _ = serving.serve_connection(io, service).await });
    })
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Http2), grpc_service()).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-said", "all".parse().unwrap());
    let frames = [Ok::<_, std::convert::Infallible>(http_body::Frame::data(bytes::Bytes::from("message")))];
    let body = http_body_util::StreamBody::new(futures::stream::iter(
        frames.into_iter().chain([Ok(http_body::Frame::trailers(trailers))]),
    ));
    let tunnel = mesh.tunnel(super::fixture::VIP).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tunnel);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut send, driver) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(driver);
    let request = Request::post("http://cart/shop.Cart/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answer = send.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(&answer.to_bytes()[..], b"message");
}

/// Counts the tunnels of an endpoint.
fn counted(tunnels: &Count, serve: super::endpoint::Serve) -> super::endpoint::Serve {
    let tunnels = tunnels.clone();
    Arc::new(move |tunnel| {
        tunnels.one_more();
        serve(tunnel);
    })
}

#[tokio::test]
async fn connections_to_endpoints_are_kept_and_shared_by_clients() {
    let tunnels = Count::default();
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), counted(&tunnels, http1(echo("cart")))).await;
    let mut clients = [mesh.http1().await, mesh.http1().await, mesh.http1().await];
    for _ in 0..4 {
        for client in &mut clients {
            let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
            text(client.send_request(request).await.unwrap()).await;
        }
    }
    // At most one for each of the two workers, because requests did not overlap.
    assert!((1..=2).contains(&tunnels.get()), "{}", tunnels.get());
}
