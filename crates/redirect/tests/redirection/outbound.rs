//! Outbound connections of a pod.

use std::net::SocketAddr;

use ambit_netns::run_in;
use ambit_netns::testing::ip as run_ip;
use socket2::{Domain, Protocol, Socket, Type};

use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn outbound_is_captured_with_its_true_destination() {
    let (world, proxy) = World::enrolled();
    for (destination, source) in
        [(PEER[0].to_owned(), POD[0]), (PEER[1].to_owned(), POD[1]), (mapped(PEER[0]), POD[0])]
    {
        let client = connect(&world.pod, socket(&destination, 80)).unwrap();
        let taken = accept(&proxy.outbound);
        assert_eq!(taken.local.ip(), ip(&destination).to_canonical(), "getsockname is the destination");
        assert_eq!(taken.local.port(), 80);
        assert_eq!(taken.peer.ip(), ip(source), "the proxy sees the pod");
        assert_eq!(client.peer_addr().unwrap(), socket(&destination, 80), "the client sees its destination");
        talk(&client, &taken.stream);
    }
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn own_addresses_and_localhost_are_not_captured() {
    let (world, proxy) = World::enrolled();
    let server = serve(&world.pod, 8080);
    for destination in ["127.0.0.1", "::1", "::ffff:127.0.0.1", POD[0], POD[1], &mapped(POD[0])] {
        let client = connect(&world.pod, socket(destination, 8080)).unwrap();
        let taken = accept(&server);
        talk(&client, &taken.stream);
    }
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_socket_bound_to_the_pods_device_is_captured() {
    let (world, proxy) = World::enrolled();
    for destination in PEER.map(|peer| socket(peer, 80)) {
        let client = stream(&world, destination, Protocol::TCP);
        client.bind_device(Some(b"eth0")).unwrap();
        client.connect(&destination.into()).unwrap();
        assert_eq!(accept(&proxy.outbound).local, destination);
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_mark_of_the_application_does_not_exempt_it() {
    let (world, proxy) = World::enrolled();
    let destination = socket(PEER[0], 80);
    let client = stream(&world, destination, Protocol::TCP);
    client.set_mark(0x7_0539).unwrap();
    client.connect(&destination.into()).unwrap();
    assert_eq!(accept(&proxy.outbound).local, destination);
    assert_eq!(client.mark().unwrap(), 0x7_0111, "bits that are not ours stay");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_socket_bound_to_an_address_is_captured() {
    let (world, proxy) = World::enrolled();
    for (source, destination) in [(POD[0], PEER[0]), (POD[1], PEER[1])] {
        let destination = socket(destination, 80);
        let client = stream(&world, destination, Protocol::TCP);
        client.bind(&socket(source, 0).into()).unwrap();
        client.connect(&destination.into()).unwrap();
        let taken = accept(&proxy.outbound);
        assert_eq!((taken.peer.ip(), taken.local), (ip(source), destination));
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn multipath_tcp_is_captured() {
    let (world, proxy) = World::enrolled();
    let destination = socket(PEER[0], 80);
    let client = stream(&world, destination, Protocol::MPTCP);
    client.connect(&destination.into()).unwrap();
    assert_eq!(accept(&proxy.outbound).local, destination);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_link_local_destination_is_refused_rather_than_let_out() {
    let (world, proxy) = World::enrolled();
    let shown = run_ip(&world.peer, &["-6", "-brief", "address", "show", "dev", "eth0", "scope", "link"]);
    let address = shown.split_whitespace().find(|word| word.starts_with("fe80:")).unwrap();
    let address = address.split('/').next().unwrap();
    let _server = serve(&world.peer, 80);
    let SocketAddr::V6(mut destination) = socket(address, 80) else { panic!("not an IPv6 address") };
    destination.set_scope_id(device_index(&world));
    let error = connect(&world.pod, destination.into()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_family_the_pod_has_no_address_of_is_refused_as_if_there_were_no_route() {
    let mut world = World::attached();
    let proxy = world.arm();
    let only_v4 = world.redirector.attach(&world.uid, &world.pod, &[ip(POD[0])]).unwrap();
    world.redirector.switch(only_v4.cookie, Some(only_v4.config), &[]).unwrap();
    let _server = serve(&world.peer, 80);
    let error = connect_within(&world.pod, socket(PEER[1], 80), AT_ONCE).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "an address that the mesh does not know of");
    let local = serve(&world.pod, 8080);
    for own in ["::1", POD[1]] {
        let _client = connect(&world.pod, socket(own, 8080)).unwrap();
        accept(&local);
    }
    proxy.assert_idle();
    let _client = connect(&world.pod, socket(PEER[0], 80)).unwrap();
    assert_eq!(accept(&proxy.outbound).local, socket(PEER[0], 80));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn datagrams_are_not_touched() {
    let (world, _proxy) = World::enrolled();
    let udp = |netns, address| run_in(netns, || std::net::UdpSocket::bind((address, 5353))).unwrap().unwrap();
    let (here, there) = (udp(&world.pod, POD[0]), udp(&world.peer, PEER[0]));
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    here.connect((PEER[0], 5353)).unwrap();
    here.send(b"ping").unwrap();
    let (_, from) = there.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from, socket(POD[0], 5353));
}

fn stream(world: &World, destination: SocketAddr, protocol: Protocol) -> Socket {
    let open = || Socket::new(Domain::for_address(destination), Type::STREAM, Some(protocol));
    run_in(&world.pod, open).unwrap().unwrap()
}

fn device_index(world: &World) -> u32 {
    run_in(&world.pod, || nix::net::if_::if_nametoindex("eth0")).unwrap().unwrap()
}
