//! Byte streams, and ports of which nobody says what they speak.

use std::{collections::BTreeMap, sync::Arc};

use ambit_model::{
    Action, AppProtocol, Clause, Match, NamespacedName, Policy, Rule, Scope, TunnelProtocol,
    authorization::RequestMatch, bound::Routes,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    endpoint::{Serve, echo, http1},
    fixture::{Mesh, VIP, bound, destination, key, to},
};

/// Says its name, then sends back what it gets.
fn parrot(name: &'static str) -> Serve {
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
    Routes { http: None, stream: Some(names.iter().map(|(name, weight)| to(name, *weight)).collect()) }
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

/// Judging a path needs a request.
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
