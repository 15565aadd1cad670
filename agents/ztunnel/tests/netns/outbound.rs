//! Outbound connections of pods in the mesh.

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use ambit_model::TunnelProtocol;
use ambit_store::AddressUpdate;

use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_reaches_another_through_a_tunnel_and_is_seen_by_its_own_address() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    for (client_ip, server_ip) in [(FRONT[0], CART[0]), (FRONT[1], CART[1])] {
        let client = connect(&world.front.netns, socket(server_ip, 8080)).unwrap();
        let (server, peer) = accept(&app);
        assert_eq!(peer.ip(), ip(client_ip));
        talk(&client, &server);
        drop((client, server));
        let tunnel = socket(server_ip, 15008).to_string();
        let line = world.front.ztunnel.log.line(&["direction=\"outbound\"", &format!("dst.addr={tunnel}")]);
        for part in [
            "info\taccess\tconnection complete",
            "src.workload=\"front\" src.namespace=\"shop\" src.identity=\"spiffe://cluster.local/ns/shop/sa/front\"",
            &format!("dst.hbone_addr={}", socket(server_ip, 8080)),
            "dst.workload=\"cart\" dst.namespace=\"shop\" dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\"",
            "bytes_sent=4 bytes_recv=4",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        let line = world.cart.ztunnel.log.line(&["direction=\"inbound\"", &format!("dst.addr={tunnel}")]);
        for part in [
            "src.identity=\"spiffe://cluster.local/ns/shop/sa/front\"",
            "src.workload=\"front\"",
            "bytes_sent=4 bytes_recv=4",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
    for (ztunnel, reporter) in [(&world.front.ztunnel, "source"), (&world.cart.ztunnel, "destination")] {
        let metrics = ztunnel.metrics();
        let opened = metrics
            .lines()
            .find(|line| {
                line.starts_with(&format!("istio_tcp_connections_opened_total{{reporter=\"{reporter}\""))
            })
            .unwrap_or_else(|| panic!("nothing opened in\n{metrics}"));
        assert!(opened.contains("mutual_tls") && opened.ends_with(" 2"), "{opened}");
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_virtual_address_leads_to_an_endpoints_target_port() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let client = connect(&world.front.netns, socket(VIP, 80)).unwrap();
    let (server, _) = accept(&app);
    talk(&client, &server);
    drop((client, server));
    world.front.ztunnel.log.line(&["dst.hbone_addr=10.77.0.3:8080", &format!("dst.service=\"{CART_HOST}\"")]);
    world.cart.ztunnel.log.line(&[&format!("dst.service=\"{CART_HOST}\"")]);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn what_the_mesh_does_not_know_is_reached_plainly_and_from_the_pods_address() {
    let world = World::new();
    let server = serve(&world.outside, 80);
    for (client_ip, server_ip) in [(FRONT[0], OUTSIDE[0]), (FRONT[1], OUTSIDE[1])] {
        let client = connect(&world.front.netns, socket(server_ip, 80)).unwrap();
        let (far, peer) = accept(&server);
        assert_eq!(peer.ip(), ip(client_ip));
        talk(&client, &far);
    }
    let line = world.front.ztunnel.log.line(&["dst.addr=10.77.0.1:80"]);
    assert!(!line.contains("dst.identity") && line.contains("bytes_sent=4"), "{line}");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn megabytes_and_half_closed_connections_survive_a_tunnel() {
    const BYTES: usize = 24 << 20;
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let mut client = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    let (mut server, _) = accept(&app);
    let sender = std::thread::spawn(move || {
        client.write_all(&vec![7; BYTES]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        answer.len()
    });
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    assert!(received.len() == BYTES && received.iter().all(|byte| *byte == 7));
    server.write_all(&received).unwrap();
    drop(server);
    assert_eq!(sender.join().unwrap(), BYTES);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn nobody_listening_resets_the_client_and_says_so() {
    let world = World::new();
    assert_refused(&world.front.netns, socket(CART[0], 81));
    world.front.ztunnel.log.line(&["error\taccess", "error=\"http status: 503\""]);
    world.cart.ztunnel.log.line(&["error\taccess", "connect to 10.77.0.3:81: Connection refused"]);
    assert!(world.front.ztunnel.metrics().contains("response_flags=\"CONNECT\""));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn another_endpoint_is_tried_when_the_first_cannot_be_reached() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let mut gone = workload("cart", ["10.77.0.99", "fd77::99"]);
    gone.uid = "Kubernetes//Pod/shop/cart-gone".into();
    gone.name = "cart-gone".into();
    // Nothing has its address, so the first try fails fast.
    gone.addresses = vec![ip("127.0.0.99")];
    gone.tunnel_protocol = TunnelProtocol::None;
    world.store.apply_addresses(vec![AddressUpdate::Workload(gone)], &[]);
    for _ in 0..8 {
        let client = connect(&world.front.netns, socket(VIP, 80)).unwrap();
        let (server, _) = accept(&app);
        talk(&client, &server);
    }
    let failovers = world.front.ztunnel.shared.metrics.failovers.get();
    assert!((1..8).contains(&failovers), "{failovers} of 8, with probability 1 - 2^-7");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_about_whose_account_agent_and_operator_disagree_is_not_served() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let mut impostor = workload("cart", CART);
    impostor.service_account = "bank".into();
    world.store.apply_addresses(vec![AddressUpdate::Workload(impostor)], &[]);
    assert_refused(&world.front.netns, socket(CART[0], 8080));
    assert_idle(&app);
    world.cart.ztunnel.log.line(&["warn\taccess\tconnection failed", "runs as service account cart"]);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn more_connections_than_one_tunnel_connection_carries_all_go_through() {
    const MANY: usize = 250;
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let accepting = std::thread::spawn(move || (0..MANY).map(|_| accept(&app).0).collect::<Vec<_>>());
    let clients: Vec<_> =
        (0..MANY).map(|_| connect(&world.front.netns, socket(CART[0], 8080)).unwrap()).collect();
    let servers = accepting.join().unwrap();
    // Which server belongs to which client is unknown, so each echoes what it received.
    for (mut client, number) in clients.iter().zip(0_u32..) {
        client.write_all(&number.to_be_bytes()).unwrap();
    }
    for mut server in &servers {
        let mut heard = [0; 4];
        server.read_exact(&mut heard).unwrap();
        server.write_all(&heard).unwrap();
    }
    for (mut client, number) in clients.iter().zip(0_u32..) {
        let mut heard = [0; 4];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(u32::from_be_bytes(heard), number);
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_is_not_described_yet_waits_for_its_description() {
    let world = World::new();
    let app = serve(&world.cart.netns, 8080);
    let front = workload("front", FRONT);
    world.store.apply_addresses(vec![], std::slice::from_ref(&front.uid));
    let client = connect(&world.front.netns, socket(CART[0], 8080)).unwrap();
    world.store.apply_addresses(vec![AddressUpdate::Workload(front)], &[]);
    talk(&client, &accept(&app).0);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_of_the_same_name_on_another_node_is_not_this_one() {
    let world = World::new();
    let mut elsewhere = workload("front", FRONT);
    elsewhere.node = "node-other".into();
    world.store.apply_addresses(vec![AddressUpdate::Workload(elsewhere)], &[]);
    assert_refused(&world.front.netns, socket(CART[0], 8080));
    world
        .front
        .ztunnel
        .log
        .line(&["warn\taccess\tconnection failed", "failed to fetch information about local workload"]);
}
