//! Inbound connections of pods in the mesh.

use std::{io::Write, net::SocketAddr};

use ambit_hbone::{ConnectError, ConnectHeaders, settings};
use ambit_identity::{HandshakeError, testing::FakeCa};
use ambit_netns::NetNs;
use ambit_ztunnel::HANDSHAKES_PER_CLIENT_MAX;
use tokio::net::TcpSocket;

use crate::fixture::*;

/// Connects to a tunnel port from outside as `account`, and requests a tunnel; returns the status.
async fn status(
    outside: &NetNs,
    ca: &FakeCa,
    to: SocketAddr,
    authority: &str,
) -> Result<u16, HandshakeError> {
    let svid = ca.svid(&identity("front")).unwrap();
    let tcp = ambit_netns::outbound(outside, to).unwrap();
    let tcp = TcpSocket::from_std_stream(tcp.into()).connect(to).await.unwrap();
    let (stream, _) = ambit_identity::connect(&svid, &[identity("cart")], tcp).await?;
    let (send, driver) = ambit_hbone::handshake(stream, settings::CLIENT).await.unwrap();
    let driver = tokio::spawn(driver);
    let answer = send.connect(&authority.parse().unwrap(), &ConnectHeaders::default()).await;
    driver.abort();
    match answer {
        Ok(_) => Ok(200),
        Err(ConnectError::Status(status)) => Ok(status),
        Err(ConnectError::Stream(error)) if error.is_io() => {
            Err(HandshakeError::Tls(error.into_io().unwrap()))
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_tunnel_leads_only_to_the_pod_it_ends_at() {
    let world = World::new();
    let _app = serve(&world.cart.netns, 8080);
    for (authority, expected) in [
        ("10.77.0.3:8080", 200),
        ("cart.shop.svc.cluster.local:80", 200),
        ("10.77.0.2:8080", 400),
        ("127.0.0.1:8080", 400),
        ("10.77.0.3:15001", 503),
        ("10.77.0.3:81", 503),
        ("other.shop.svc.cluster.local:80", 503),
    ] {
        let asked = status(&world.outside, &world.ca, socket(CART[0], 15008), authority);
        assert_eq!(world.runtime.block_on(asked).unwrap(), expected, "{authority}");
    }
    world.cart.ztunnel.log.line(&["error=\"ip mismatch: the tunnel ends at 10.77.0.3:15008"]);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_peer_of_another_mesh_gets_nowhere() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let foreign = FakeCa::new("cluster.local").unwrap();
    let asked = status(&world.outside, &foreign, socket(CART[0], 15008), "10.77.0.3:8080");
    assert!(world.runtime.block_on(asked).is_err());
    assert_idle(&app);
    world.cart.ztunnel.log.line(&["warn\taccess\tconnection failed", "TLS handshake failed"]);
    assert!(world.cart.ztunnel.metrics().contains("response_flags=\"TLS_FAILURE\""));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn plaintext_on_the_tunnel_port_is_closed_counted_and_logged() {
    let world = World::new();
    let mut client = connect(&world.outside, socket(CART[0], 15008)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    world.cart.ztunnel.log.line(&[
        "warn\taccess\tconnection failed",
        "dst.addr=10.77.0.3:15008",
        "TLS handshake failed",
    ]);
    let _ = std::io::copy(&mut client, &mut std::io::sink());
    assert_eq!(world.cart.ztunnel.shared.metrics.handshakes_failed.get(), 1);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn tunnels_that_never_say_who_they_are_are_given_up_for_newer_ones() {
    let world = World::new();
    let _app = serve(&world.cart.netns, 8080);
    let to = socket(CART[0], 15008);
    let silent: Vec<_> =
        (0..2 * HANDSHAKES_PER_CLIENT_MAX).map(|_| connect(&world.outside, to).unwrap()).collect();
    world.cart.ztunnel.log.line(&["warn\taccess\tconnection failed", "cancelled in favour of newer ones"]);
    let asked = status(&world.outside, &world.ca, to, "10.77.0.3:8080");
    assert_eq!(world.runtime.block_on(asked).unwrap(), 200);
    drop(silent);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn plaintext_reaches_the_application_from_its_clients_address() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    for (client_ip, server_ip) in [(OUTSIDE[0], CART[0]), (OUTSIDE[1], CART[1])] {
        let client = connect(&world.outside, socket(server_ip, 8080)).unwrap();
        let (server, peer) = accept(&app);
        assert_eq!(peer.ip(), ip(client_ip));
        talk(&client, &server);
    }
    let line = world.cart.ztunnel.log.line(&["direction=\"inbound\"", "dst.addr=10.77.0.3:8080"]);
    assert!(!line.contains("identity"), "{line}");
}
