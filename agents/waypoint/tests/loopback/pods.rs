//! Pods that are bound themselves, addressed by their own addresses.

use std::{collections::BTreeMap, sync::Arc};

use ambit_model::{
    Addressed, AppProtocol, BoundService, GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress,
    TunnelProtocol, bound::PODS,
};
use ambit_store::AddressUpdate;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::{
    endpoint::{Serve, echo, http1, http2},
    fixture::{Mesh, PATIENCE, VIP, bound, identity, key, pod, text},
    judging::{deny, path},
    meaning::vouching,
};

/// What a waypoint does with pods of its namespace; `on_their_way` are listed by name.
fn pods(on_their_way: &[&str]) -> BoundService {
    BoundService {
        key: NamespacedName::new("shop", PODS),
        addressed: Addressed::Pods(on_their_way.iter().map(|uid| Arc::from(*uid)).collect()),
        ports: Vec::new(),
        destinations: BTreeMap::new(),
        ..bound(AppProtocol::Detect)
    }
}

fn waypoint(name: &str) -> Option<GatewayAddress> {
    let destination = GatewayDestination::Hostname(key(name));
    Some(GatewayAddress { destination, hbone_mtls_port: 15008 })
}

/// A waypoint that knows its own pod, of the service `waypoint`.
fn mesh() -> Mesh {
    let mesh = Mesh::start();
    let mut own = pod("waypoint-1", [127, 0, 0, 9].into(), TunnelProtocol::Hbone);
    own.services = BTreeMap::from([(key("waypoint"), Vec::new())]);
    own.service_account = "waypoint".into();
    mesh.shared.store.apply_addresses(vec![AddressUpdate::Workload(own)], &[]);
    mesh
}

async fn status(mesh: &Mesh, authority: &str, path: &str) -> u16 {
    let mut client = mesh.http1_to(&identity("shop", "web"), authority).await;
    let request = Request::get(path).header("host", authority).body(Full::default()).unwrap();
    client.send_request(request).await.unwrap().status().as_u16()
}

async fn refusal(mesh: &Mesh, authority: &str) -> String {
    mesh.tunnel(authority).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_pod_that_says_so_or_is_on_its_way_is_served_on_any_port_and_no_other_is() {
    let mut mesh = mesh();
    let mut judged = pods(&["Kubernetes//Pod/shop/coming"]);
    judged.authorization = vec![deny(path("/admin"))];
    let mut addresses = BTreeMap::new();
    for (name, waypoint) in
        [("bound", waypoint("waypoint")), ("coming", None), ("other", waypoint("elsewhere")), ("free", None)]
    {
        mesh.lone_pod(name, http1(echo(name)), waypoint).await;
        addresses.insert(name, mesh.last_pod().to_string());
    }
    mesh.bind(judged).await;
    for name in ["bound", "coming"] {
        let address = &addresses[name];
        assert_eq!(status(&mesh, address, "/items").await, 200, "{name}");
        assert_eq!(status(&mesh, address, "/admin/keys").await, 403, "{name}");
        let other_port = address.replace(":8080", ":1234");
        assert_eq!(status(&mesh, &other_port, "/items").await, 200, "{name}");
    }
    for name in ["other", "free"] {
        assert_eq!(refusal(&mesh, &addresses[name]).await, "http status: 404", "{name}");
    }
    mesh.unbind(&NamespacedName::new("shop", PODS)).await;
    assert_eq!(refusal(&mesh, &addresses["bound"]).await, "http status: 404");
}

#[tokio::test]
async fn the_pod_is_spoken_to_as_the_client_speaks() {
    let mut mesh = mesh();
    mesh.lone_pod("h2c", http2(echo("h2c")), waypoint("waypoint")).await;
    mesh.bind(pods(&[])).await;
    let address = mesh.last_pod().to_string();
    let io = TokioIo::new(mesh.tunnel(&address).await.unwrap());
    let (mut send, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(driver);
    let request =
        Request::get(format!("http://{address}/items")).body(Full::<bytes::Bytes>::default()).unwrap();
    let answer = text(send.send_request(request).await.unwrap()).await;
    assert!(answer.starts_with("h2c HTTP/2.0 GET"), "{answer}");
}

#[tokio::test]
async fn a_plain_pod_is_reached_on_exactly_the_port_that_was_asked_for_whatever_it_speaks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let mesh = mesh();
    let mut plain = pod("plain", address.ip(), TunnelProtocol::None);
    plain.waypoint = waypoint("waypoint");
    mesh.shared.store.apply_addresses(vec![AddressUpdate::Workload(plain)], &[]);
    mesh.bind(pods(&[])).await;
    let mut tunnel = mesh.tunnel(&address.to_string()).await.unwrap();
    tunnel.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "*1\r\n$4\r\nPING\r\n");
}

#[tokio::test]
async fn the_port_of_a_bound_service_is_judged_as_the_service_and_the_others_as_the_pod() {
    let mut mesh = mesh();
    mesh.service("cart", VIP);
    mesh.endpoint("cart", http1(echo("cart"))).await;
    let address = mesh.last_pod();
    let mut endpoint = mesh
        .shared
        .store
        .load()
        .workload_by_address(&NetworkAddress { network: "".into(), address: address.ip() })
        .unwrap()
        .as_ref()
        .clone();
    endpoint.waypoint = waypoint("waypoint");
    mesh.shared.store.apply_addresses(vec![AddressUpdate::Workload(endpoint)], &[]);
    let (mut service, mut itself) = (bound(AppProtocol::Http), pods(&[]));
    service.authorization = vec![deny(path("/service"))];
    itself.authorization = vec![deny(path("/pod"))];
    mesh.bind(service).await;
    mesh.bind(itself).await;
    let (of_service, of_pod) = (address.to_string(), format!("{}:9", address.ip()));
    assert_eq!(status(&mesh, &of_service, "/service").await, 403);
    assert_eq!(status(&mesh, &of_service, "/pod").await, 200);
    assert_eq!(status(&mesh, &of_pod, "/service").await, 200);
    assert_eq!(status(&mesh, &of_pod, "/pod").await, 403);
    // A version that could not be decoded may forbid anything.
    mesh.spoil(&key("cart")).await;
    assert_eq!(refusal(&mesh, &of_service).await, "http status: 503");
    assert_eq!(status(&mesh, &of_pod, "/items").await, 200);
    mesh.spoil(&NamespacedName::new("shop", PODS)).await;
    assert_eq!(refusal(&mesh, &of_pod).await, "http status: 503");
}

#[tokio::test]
async fn a_pod_that_leaves_while_others_stay_fails_no_request_and_its_clients_are_sent_away() {
    let mut mesh = mesh();
    mesh.lone_pod("leaving", http1(echo("leaving")), None).await;
    mesh.bind(pods(&["Kubernetes//Pod/shop/leaving"])).await;
    let address = mesh.last_pod().to_string();
    let mut client = mesh.http1_to(&identity("shop", "web"), &address).await;
    let ask = || Request::get("/").header("host", &address).body(Full::default()).unwrap();
    text(client.send_request(ask()).await.unwrap()).await;
    mesh.bind(pods(&["Kubernetes//Pod/shop/another"])).await;
    let answer = client.send_request(ask()).await.unwrap();
    assert_eq!(answer.status(), 200);
    text(answer).await;
    timeout(PATIENCE, async { while client.ready().await.is_ok() {} }).await.unwrap();
    assert_eq!(refusal(&mesh, &address).await, "http status: 404");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_at_once_on_a_port_that_is_known_for_it() {
    let greeting: Serve = Arc::new(|mut tunnel| {
        tokio::spawn(async move {
            tunnel.write_all(b"220 ready").await.unwrap();
            _ = tunnel.read(&mut [0; 1]).await;
        });
    });
    let mut mesh = mesh();
    mesh.lone_pod("db", greeting, waypoint("waypoint")).await;
    mesh.bind(pods(&[])).await;
    for port in [25, 53, 3306, 27017] {
        let address = std::net::SocketAddr::new(mesh.last_pod().ip(), port);
        let begun = std::time::Instant::now();
        let mut tunnel = mesh.tunnel(&address.to_string()).await.unwrap();
        let mut heard = [0; 9];
        tunnel.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"220 ready");
        assert!(begun.elapsed() < ambit_waypoint::detect::SILENCE_TIMEOUT, "{port}");
    }
}

#[tokio::test]
async fn ports_of_pods_whose_tokens_are_asked_for_are_http() {
    let mut mesh = mesh();
    let mut vouched = pods(&[]);
    vouched.authentication = vec![vouching()];
    mesh.lone_pod("web", http1(echo("web")), waypoint("waypoint")).await;
    mesh.bind(vouched).await;
    let mut tunnel = mesh.tunnel(&mesh.last_pod().to_string()).await.unwrap();
    tunnel.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let mut heard = String::new();
    tunnel.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
}
