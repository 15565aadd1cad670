//! Byte streams, and ports without a declared protocol.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ambit_model::{
    Action, AppProtocol, Clause, Match, NamespacedName, Policy, Rule, Scope, TunnelProtocol,
    authorization::RequestMatch,
    bound::{DestinationSettings, RateLimit, RateLimitScope, RequestPolicy, Routes},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    endpoint::{Serve, echo, http1, http2},
    fixture::{Mesh, VIP, bound, destination, key, routed, rule, to},
    meaning::vouching,
};

/// Sends its name, then echoes what it receives.
pub(super) fn parrot(name: &'static str) -> Serve {
    Arc::new(move |mut tunnel| {
        tokio::spawn(async move {
            let mut heard = Vec::new();
            let mut buffer = [0; 1024];
            while let Ok(read) = tunnel.read(&mut buffer).await {
                if read == 0 {
                    break;
                }
                heard.extend_from_slice(&buffer[..read]);
            }
            tunnel.write_all(name.as_bytes()).await.unwrap();
            tunnel.write_all(&heard).await.unwrap();
            tunnel.shutdown().await.unwrap();
        });
    })
}

async fn said(mesh: &Mesh, words: &[u8]) -> std::io::Result<String> {
    let mut tunnel = mesh.tunnel(VIP).await.map_err(std::io::Error::other)?;
    tunnel.write_all(words).await?;
    tunnel.shutdown().await?;
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn weighted(names: &[(&str, u32)]) -> Routes {
    let stream = names.iter().map(|(name, weight)| to(name, *weight)).collect();
    Routes { stream: Some(stream), ..Routes::default() }
}

#[tokio::test]
async fn a_stream_reaches_the_service_and_ends_each_way_on_its_own() {
    for protocol in [AppProtocol::Tcp, AppProtocol::Tls, AppProtocol::Detect] {
        let mesh = Mesh::with_cart(bound(protocol), parrot("cart:")).await;
        assert_eq!(said(&mesh, b"\x16\x03 hello").await.unwrap(), "cart:\x16\x03 hello");
    }
}

#[tokio::test]
async fn streams_split_by_weight() {
    let mut mesh = Mesh::start();
    for (name, vip) in [("cart", VIP), ("v2", "10.0.0.3:80")] {
        mesh.service(name, vip);
    }
    mesh.endpoint("cart", parrot("cart:")).await;
    mesh.endpoint("v2", parrot("v2:")).await;
    let mut split = bound(AppProtocol::Tcp);
    split.ports[0].routes = weighted(&[("cart", 0), ("v2", 1)]);
    split.destinations = BTreeMap::from([(destination("v2"), Default::default())]);
    mesh.bind(split.clone()).await;
    assert_eq!(said(&mesh, b"x").await.unwrap(), "v2:x");
    split.ports[0].routes = weighted(&[("cart", 0), ("v2", 0)]);
    mesh.bind(split).await;
    assert!(said(&mesh, b"x").await.is_err(), "weights that are all zero take nothing");
}

#[tokio::test]
async fn an_endpoint_outside_the_mesh_is_reached_without_a_tunnel() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let mesh = Mesh::start();
    mesh.service("cart", VIP);
    mesh.workload("cart", [127, 0, 0, 1].into(), TunnelProtocol::None);
    mesh.bind(bound(AppProtocol::Tcp)).await;
    assert_eq!(said(&mesh, b"plain").await.unwrap(), "plain");
}

#[tokio::test]
async fn http_is_told_by_its_first_bytes() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Detect), http1(echo("cart"))).await;
    let (status, text) = mesh.get("/a").await;
    assert!(status == 200 && text.contains("x-forwarded-proto"), "{text}");
}

#[tokio::test]
async fn a_method_is_any_word_and_empty_lines_may_come_before_it() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Detect), http1(echo("cart"))).await;
    for begins in ["LOCK", "REPORT", "m-search", "\r\nGET", "\r\n\r\nPURGE"] {
        let heard =
            said(&mesh, format!("{begins} /a HTTP/1.1\r\nhost: cart\r\n\r\n").as_bytes()).await.unwrap();
        let method = begins.trim();
        assert!(heard.contains(&format!("cart HTTP/1.1 {method} /a\n")), "{heard}");
        assert!(heard.contains("x-forwarded-proto"), "it went as bytes: {heard}");
    }
}

/// A client cannot bypass request rules by not speaking HTTP.
#[tokio::test]
async fn a_port_with_rules_about_requests_is_http_whatever_its_first_bytes_are() {
    let mut vouched = bound(AppProtocol::Detect);
    vouched.authentication = vec![vouching()];
    let mut limited = bound(AppProtocol::Detect);
    limited.requests = Arc::new(RequestPolicy {
        faults: Vec::new(),
        rate_limits: vec![RateLimit {
            scope: RateLimitScope::Service,
            requests: 1,
            interval: Duration::from_secs(1),
            burst: 1,
        }],
    });
    let mut of_service = routed(vec![rule(vec![to("cart", 1)])], &["cart"]);
    of_service.ports[0].protocol = AppProtocol::Detect;
    let mut of_consumer = bound(AppProtocol::Detect);
    let routes = of_service.ports[0].routes.clone();
    of_consumer.ports[0].consumers.insert("shop".into(), routes);
    of_consumer.destinations = of_service.destinations.clone();
    for (what, bound) in
        [("token", vouched), ("limit", limited), ("route", of_service), ("consumer", of_consumer)]
    {
        let mesh = Mesh::with_cart(bound, parrot("cart:")).await;
        for words in [&b"\x16\x03\x01 hello"[..], b"*1\r\n$4\r\nPING\r\n", b"GET key\r\n\r\n"] {
            let heard = said(&mesh, words).await.unwrap();
            assert!(heard.starts_with("HTTP/1.1 400 "), "{what}: {heard}");
        }
    }
}

#[tokio::test]
async fn a_client_of_http1_is_served_on_a_port_that_is_declared_for_http2() {
    let mut declared = bound(AppProtocol::Http2);
    let settings = DestinationSettings { protocol: AppProtocol::Http2, ..DestinationSettings::default() };
    declared.destinations.insert(destination("cart"), settings);
    let mesh = Mesh::with_cart(declared, http2(echo("cart"))).await;
    let (status, text) = mesh.get("/healthz").await;
    assert_eq!((status, text.lines().next().unwrap()), (200, "cart HTTP/2.0 GET http://cart/healthz"));
}

/// A policy on paths, which needs requests.
fn only_reads() -> Arc<Policy> {
    let request = RequestMatch {
        methods: vec![ambit_model::StringMatch::Exact("GET".into())],
        ..RequestMatch::default()
    };
    let matches = vec![Match { request: Some(Box::new(request)), ..Match::default() }];
    Arc::new(Policy {
        key: NamespacedName::new("shop", "reads"),
        scope: Scope::WorkloadSelector,
        action: Action::Allow,
        rules: vec![Rule { clauses: vec![Clause { matches }] }],
        dry_run: false,
    })
}

#[tokio::test]
async fn a_stream_that_is_no_http_is_closed_where_requests_are_judged() {
    let mut judged = bound(AppProtocol::Detect);
    judged.authorization = vec![only_reads()];
    let mesh = Mesh::with_cart(judged, parrot("cart:")).await;
    assert!(said(&mesh, b"*1\r\n$4\r\nPING\r\n").await.is_err());
}

#[tokio::test]
async fn an_open_stream_is_cut_once_policy_denies_it() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Tcp), parrot("cart:")).await;
    let mut tunnel = mesh.tunnel(VIP).await.unwrap();
    tunnel.write_all(b"open").await.unwrap();
    let mut closed = bound(AppProtocol::Tcp);
    closed.authorization = vec![only_reads()];
    mesh.bind(closed).await;
    let error = tunnel.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(mesh.shared.services.load().get(&key("cart")).is_some());
}
