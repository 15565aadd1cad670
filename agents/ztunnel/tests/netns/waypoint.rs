//! Destinations behind a waypoint, with a waypoint that forwards everything to one application.

use std::{
    net::TcpListener,
    sync::{Arc, mpsc},
};

use ambit_hbone::{ConnectRequest, Counters, Responder, settings};
use ambit_identity::Svid;
use ambit_model::{
    GatewayAddress, GatewayDestination, HBONE_PORT, Health, Match, NamespacedName, Service, StringMatch,
    Workload,
};
use ambit_netns::run_in;
use ambit_store::AddressUpdate;
use tokio::net::TcpStream;

use crate::fixture::*;

const WAYPOINT_HOST: &str = "waypoint.shop.svc.cluster.local";
/// Port of the waypoint's application.
const BEHIND: u16 = 9000;

fn key() -> NamespacedName {
    NamespacedName::new("shop", WAYPOINT_HOST)
}

fn bind(world: &World, health: Health) {
    let service = Service {
        name: "waypoint".into(),
        hostname: WAYPOINT_HOST.into(),
        addresses: vec![],
        ports: vec![],
        ..cart_service()
    };
    let pod = Workload {
        services: [(key(), vec![])].into(),
        native_tunnel: true,
        health,
        ..workload("waypoint", OUTSIDE)
    };
    let destination = GatewayDestination::Hostname(key());
    let waypoint = Some(GatewayAddress { destination, hbone_mtls_port: HBONE_PORT });
    world.store.apply_addresses(
        vec![
            AddressUpdate::Service(service),
            AddressUpdate::Workload(pod),
            AddressUpdate::Service(Service { waypoint, ..cart_service() }),
        ],
        &[],
    );
}

/// A waypoint outside of the node's pods; it reports the client and the requested target.
fn waypoint(world: &World, account: &str) -> (mpsc::Receiver<String>, TcpListener) {
    let behind = serve(&world.outside, BEHIND);
    let svid = world.ca.svid(&identity(account)).unwrap();
    let (told, asked) = mpsc::channel();
    let tunnels = serve(&world.outside, HBONE_PORT);
    tunnels.set_nonblocking(true).unwrap();
    let outside = world.outside.try_clone().unwrap();
    world.runtime.spawn(async move {
        let tunnels = tokio::net::TcpListener::from_std(tunnels).unwrap();
        while let Ok((stream, _)) = tunnels.accept().await {
            let connect = || run_in(&outside, || std::net::TcpStream::connect(("127.0.0.1", BEHIND)));
            let behind = connect().unwrap().unwrap();
            tokio::spawn(tunnel(svid.clone(), stream, (told.clone(), behind)));
        }
    });
    (asked, behind)
}

/// One tunnel connection; its last CONNECT is forwarded to the application.
async fn tunnel(
    svid: Arc<Svid>,
    stream: TcpStream,
    (told, behind): (mpsc::Sender<String>, std::net::TcpStream),
) {
    let Ok((stream, peer)) = ambit_identity::accept(&svid, stream).await else { return };
    let mut behind = Some(behind);
    let handler = move |request: ConnectRequest, responder: Responder| {
        let host = request.headers.forwarded.and_then(|forwarded| forwarded.host).unwrap_or_default();
        told.send(format!("{peer} asks for {} as {host}", request.authority)).unwrap();
        let Some(behind) = behind.take() else { return };
        tokio::spawn(async move {
            behind.set_nonblocking(true).unwrap();
            let mut behind = TcpStream::from_std(behind).unwrap();
            let tunnel = responder.accept(None).unwrap();
            ambit_hbone::copy(tunnel, &mut behind, &Counters::default()).await
        });
    };
    let _ = ambit_hbone::serve(stream, settings::SERVER, std::future::pending(), handler).await;
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_service_with_a_waypoint_is_reached_through_it_by_its_virtual_address() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let (asked, behind) = waypoint(&world, "waypoint");
    bind(&world, Health::Healthy);
    let client = connect(&world.front.netns, socket(VIP, 80)).unwrap();
    let (server, _) = accept(&behind);
    talk(&client, &server);
    assert_eq!(
        asked.recv_timeout(PATIENCE).unwrap(),
        format!("{} asks for {VIP}:80 as {CART_HOST}", identity("front"))
    );
    assert_idle(&app);
    drop((client, server));
    let line = world.front.ztunnel.log.line(&["direction=\"outbound\"", "dst.addr=10.77.0.1:15008"]);
    for part in [
        "info\taccess\tconnection complete",
        "dst.hbone_addr=10.96.0.7:80",
        &format!("dst.service=\"{CART_HOST}\""),
        "dst.workload=\"waypoint\"",
        "dst.identity=\"spiffe://cluster.local/ns/shop/sa/waypoint\"",
        "bytes_sent=4 bytes_recv=4",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let metrics = world.front.ztunnel.metrics();
    let opened = metrics
        .lines()
        .find(|line| line.starts_with("istio_tcp_connections_opened_total{reporter=\"source\""))
        .unwrap_or_else(|| panic!("nothing opened in\n{metrics}"));
    for part in [&format!("destination_service=\"{CART_HOST}\""), "mutual_tls"] {
        assert!(opened.contains(part), "{part} is not in {opened}");
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_waypoint_that_is_not_ready_or_not_itself_closes_its_services() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let (asked, _behind) = waypoint(&world, "impostor");
    bind(&world, Health::Unhealthy);
    assert_refused(&world.front.netns, socket(VIP, 80));
    world.front.ztunnel.log.line(&[
        "error\taccess",
        &format!("shop/{CART_HOST} is only reached through its waypoint shop/{WAYPOINT_HOST}"),
    ]);
    bind(&world, Health::Healthy);
    assert_refused(&world.front.netns, socket(VIP, 80));
    world.front.ztunnel.log.line(&["error\taccess", "dst.addr=10.77.0.1:15008", "sa/impostor"]);
    assert!(asked.try_recv().is_err(), "nobody asks an impostor");
    assert_idle(&app);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn nobody_gets_round_a_waypoint_by_the_address_of_the_pod() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    bind(&world, Health::Healthy);
    let only_waypoint = Match {
        not_principals: vec![StringMatch::Exact("cluster.local/ns/shop/sa/waypoint".into())],
        destination_ports: vec![8080],
        ..Match::default()
    };
    world.apply(deny("ambit-waypoint-cart", only_waypoint));
    assert_refused(&world.front.netns, socket(CART[0], 8080));
    assert_refused(&world.outside, socket(CART[0], 8080));
    world.cart.ztunnel.log.line(&["explicitly denied by shop/ambit-waypoint-cart"]);
    assert_idle(&app);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_port_that_its_owner_leaves_open_takes_plaintext_past_the_waypoint_and_nothing_else() {
    let world = World::new();
    let (app, other) = (serve(&world.cart.netns, 8080), serve(&world.cart.netns, 9090));
    let on = |port: u16, principals| Match {
        principals,
        not_principals: vec![StringMatch::Exact("cluster.local/ns/shop/sa/waypoint".into())],
        destination_ports: vec![port],
        ..Match::default()
    };
    // The policy that the operator derives for a Service with two ports, one of which a
    // PeerAuthentication sets to PERMISSIVE.
    let mut guard = deny("ambit-waypoint-cart@hook", on(9090, vec![]));
    guard.rules[0].clauses[0].matches.push(on(8080, vec![StringMatch::Presence]));
    world.apply(guard);
    let client = connect(&world.outside, socket(CART[0], 8080)).unwrap();
    let (server, peer) = accept(&app);
    assert_eq!(peer.ip(), ip(OUTSIDE[0]));
    talk(&client, &server);
    assert_refused(&world.outside, socket(CART[0], 9090));
    for port in [8080, 9090] {
        assert_refused(&world.front.netns, socket(CART[0], port));
    }
    world.cart.ztunnel.log.line(&["explicitly denied by shop/ambit-waypoint-cart@hook", "sa/front"]);
    // The owner's policies at the node still apply, also to open connections.
    let source_ips = vec![format!("{}/32", OUTSIDE[0]).parse().unwrap()];
    world.apply(deny("no-outsiders", Match { source_ips, ..Match::default() }));
    assert_reset(&client);
    assert_refused(&world.outside, socket(CART[0], 8080));
    assert_idle(&app);
    assert_idle(&other);
}
