//! Addresses of a pod that the mesh does not know: on the loopback device, or of another network.

use std::net::TcpListener;

use ambit_netns::testing::{End, ip as run_ip, veth};
use ambit_netns::{run_in, upstream_to_app};
use ambit_redirect::cgroup;
use socket2::{Domain, Socket, Type};

use crate::fixture::*;

const OTHER_POD: [&str; 2] = ["203.0.113.9", "fd99::9"];
const OTHER_PEER: [&str; 2] = ["203.0.113.10", "fd99::10"];

/// A pod with a second network to its peer, and further addresses on `lo`.
fn world() -> (World, Proxy, TcpListener) {
    let (world, proxy) = World::enrolled();
    veth(
        End { netns: &world.pod, device: "net1", addresses: &["203.0.113.9/24", "fd99::9/64"] },
        End { netns: &world.peer, device: "net1", addresses: &["203.0.113.10/24", "fd99::10/64"] },
    );
    // Two addresses of one subnet: the kernel dials the second from the first.
    for address in ["198.51.100.9/24", "198.51.100.10/24", "fd98::9/64"] {
        run_ip(&world.pod, &["address", "add", address, "dev", "lo"]);
    }
    let app = serve(&world.pod, 8080);
    (world, proxy, app)
}

const OWN: [&str; 6] =
    ["198.51.100.9", "198.51.100.10", "::ffff:198.51.100.10", "fd98::9", OTHER_POD[0], OTHER_POD[1]];

#[test]
#[ignore = "needs root: make test-netns"]
fn a_connection_to_oneself_is_local_whichever_device_has_the_address() {
    let (world, proxy, app) = world();
    for own in OWN {
        let client = connect(&world.pod, socket(own, 8080)).unwrap();
        let taken = accept(&app);
        assert_eq!(taken.peer.ip(), ip(own).to_canonical());
        talk(&client, &taken.stream);
    }
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_proxy_that_dials_an_address_of_its_pod_is_not_its_own_client() {
    let (mut world, proxy, app) = world();
    let cgroup = world.cgroup("proxy");
    world.redirector.exempt(cgroup::id(&cgroup).unwrap()).unwrap();
    for own in OWN {
        let _client = connect_from(&cgroup, &world.pod, socket(own, 8080));
        assert_eq!(accept(&app).peer.ip(), ip(own).to_canonical());
    }
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_socket_that_may_bind_foreign_addresses_is_captured_all_the_same() {
    let (world, proxy, _app) = world();
    let destination = socket(PEER[0], 80);
    let free = run_in(&world.pod, || Socket::new(Domain::IPV4, Type::STREAM, None)).unwrap().unwrap();
    free.set_freebind_v4(true).unwrap();
    free.connect_timeout(&destination.into(), PATIENCE).unwrap();
    let taken = accept(&proxy.outbound);
    assert_eq!((taken.peer.ip(), taken.local), (ip(POD[0]), destination));
    // Also a socket that the application bound to an address of the other network.
    let bound = run_in(&world.pod, || Socket::new(Domain::IPV4, Type::STREAM, None)).unwrap().unwrap();
    bound.bind(&socket(OTHER_POD[0], 0).into()).unwrap();
    bound.connect_timeout(&destination.into(), PATIENCE).unwrap();
    assert_eq!(accept(&proxy.outbound).peer.ip(), ip(OTHER_POD[0]));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_client_of_another_network_is_judged_and_the_application_sees_its_address() {
    let (mut world, proxy, app) = world();
    // The test process forwards the client, as a proxy does.
    let here = cgroup::of_pid(std::process::id(), &world.config.cgroup).unwrap();
    world.redirector.exempt(cgroup::id(&here).unwrap()).unwrap();
    for (client_ip, pod_ip) in OTHER_PEER.into_iter().zip(OTHER_POD) {
        let client = connect(&world.peer, socket(pod_ip, 8080)).unwrap();
        let taken = accept(&proxy.plaintext);
        assert_eq!((taken.peer.ip(), taken.local), (ip(client_ip), socket(pod_ip, 8080)));
        let upstream = upstream_to_app(&world.pod, Some(taken.peer.ip()), taken.local).unwrap();
        let served = accept(&app);
        assert_eq!((served.peer.ip(), served.local), (ip(client_ip), socket(pod_ip, 8080)));
        upstream.set_nonblocking(false).unwrap();
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        talk(&upstream, &served.stream);
        talk(&client, &taken.stream);
    }
    proxy.assert_idle();
}
