//! Forwarded packets: a network namespace inside the pod, as a container engine or a virtual
//! machine creates it.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use ambit_netns::testing::{End, ip as run_ip, namespace, veth};
use ambit_netns::{NetNs, run_in};
use ambit_redirect::Direction;

use crate::fixture::*;

const INNER: [&str; 2] = ["172.31.7.2", "fd31::2"];
/// How long to wait for a packet that must not arrive. The other half of such a test shows that the
/// packet arrives elsewhere, or did so before.
const NOTHING: Duration = Duration::from_millis(300);

/// An enrolled pod that routes for a namespace inside it. The peer has a route back, so that
/// escaped packets are seen.
fn world() -> (World, Proxy, NetNs) {
    let (mut world, proxy) = World::enrolled();
    let inner = namespace();
    veth(
        End { netns: &world.pod, device: "nest", addresses: &["172.31.7.1/24", "fd31::1/64"] },
        End { netns: &inner, device: "eth0", addresses: &["172.31.7.2/24", "fd31::2/64"] },
    );
    run_ip(&inner, &["route", "add", "default", "via", "172.31.7.1"]);
    run_ip(&inner, &["route", "add", "default", "via", "fd31::1"]);
    run_ip(&world.peer, &["route", "add", "172.31.7.0/24", "via", POD[0]]);
    run_ip(&world.peer, &["route", "add", "fd31::/64", "via", POD[1]]);
    run_in(&world.pod, || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    })
    .unwrap();
    cover(&mut world);
    (world, proxy, inner)
}

fn cover(world: &mut World) {
    world.redirector.cover(&world.uid, &world.pod, &POD.map(ip), &[]).unwrap();
}

fn dropped(world: &World, wanted: Direction) -> u64 {
    let counted = world.redirector.forwarded().unwrap();
    let own = counted
        .into_iter()
        .filter(|(cookie, direction, _)| (*cookie, *direction) == (world.attached.cookie, wanted));
    own.map(|(_, _, count)| count).sum()
}

fn udp(netns: &NetNs, port: u16) -> UdpSocket {
    let socket = run_in(netns, || UdpSocket::bind(("::", port))).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends a datagram until something happens.
fn send_until<T>(from: &UdpSocket, to: std::net::SocketAddr, happened: impl Fn() -> Option<T>) -> T {
    let to = match to {
        std::net::SocketAddr::V4(to) => (to.ip().to_ipv6_mapped(), to.port()),
        std::net::SocketAddr::V6(to) => (*to.ip(), to.port()),
    };
    eventually(|| {
        from.send_to(b"ping", to).unwrap();
        happened()
    })
}

fn arrives(socket: &UdpSocket) -> io::Result<usize> {
    socket.set_read_timeout(Some(NOTHING)).unwrap();
    socket.recv(&mut [0; 8])
}

#[test]
#[ignore = "needs root: make test-netns"]
fn what_opens_a_connection_inside_is_the_pods_own_to_its_proxy() {
    let (world, proxy, inner) = world();
    let server = serve(&world.peer, 80);
    for (inner_ip, peer_ip) in INNER.into_iter().zip(PEER) {
        let client = connect(&inner, socket(peer_ip, 80)).unwrap();
        let taken = accept(&proxy.outbound);
        assert_eq!((taken.peer.ip(), taken.local), (ip(inner_ip), socket(peer_ip, 80)));
        talk(&client, &taken.stream);
    }
    proxy.assert_idle();
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err(), "nothing went there in plaintext");
    assert_eq!(dropped(&world, Direction::Out), 0);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn what_is_masqueraded_inside_is_steered_too() {
    let (world, proxy, inner) = world();
    nat(
        &world.pod,
        "add chain ip t post { type nat hook postrouting priority 100; }\nadd rule ip t post ip saddr 172.31.7.0/24 oifname eth0 masquerade",
    );
    let client = connect(&inner, socket(PEER[0], 80)).unwrap();
    let taken = accept(&proxy.outbound);
    assert_eq!((taken.peer.ip(), taken.local), (ip(INNER[0]), socket(PEER[0], 80)));
    talk(&client, &taken.stream);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn without_a_proxy_nothing_inside_gets_out() {
    let (world, proxy, inner) = world();
    proxy.end(&world);
    let server = serve(&world.peer, 80);
    for peer_ip in PEER {
        let before = dropped(&world, Direction::Out);
        eventually(|| {
            connect_within(&inner, socket(peer_ip, 80), NOTHING).unwrap_err();
            (dropped(&world, Direction::Out) > before).then_some(())
        });
    }
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err());
}

#[test]
#[ignore = "needs root: make test-netns"]
fn what_reaches_the_inside_past_the_judge_is_dropped_and_counted() {
    let (world, proxy, inner) = world();
    nat(
        &world.pod,
        "add chain ip t pre { type nat hook prerouting priority -100; }\nadd rule ip t pre iifname eth0 tcp dport 9090 dnat to 172.31.7.2:9090",
    );
    let app = serve(&inner, 9090);
    // By the pod's address and port, and by a route.
    for to in [socket(POD[0], 9090), socket(INNER[0], 9090), socket(INNER[1], 9090)] {
        let before = dropped(&world, Direction::In);
        // Nothing is forwarded before neighbour discovery has finished.
        eventually(|| {
            connect_within(&world.peer, to, NOTHING).unwrap_err();
            (dropped(&world, Direction::In) > before).then_some(())
        });
    }
    app.set_nonblocking(true).unwrap();
    assert!(app.accept().is_err());
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn datagrams_are_dropped_but_for_name_queries() {
    let (world, _proxy, inner) = world();
    let (inside, outside, names) = (udp(&inner, 4000), udp(&world.peer, 4000), udp(&world.peer, 53));
    for (inner_ip, peer_ip) in INNER.into_iter().zip(PEER) {
        let before = dropped(&world, Direction::Out);
        send_until(&inside, socket(peer_ip, 4000), || {
            (dropped(&world, Direction::Out) > before).then_some(())
        });
        assert!(arrives(&outside).is_err());
        send_until(&inside, socket(peer_ip, 53), || arrives(&names).ok());
        let before = dropped(&world, Direction::In);
        send_until(&outside, socket(inner_ip, 4000), || {
            (dropped(&world, Direction::In) > before).then_some(())
        });
        assert!(arrives(&inside).is_err());
        send_until(&names, socket(inner_ip, 4000), || arrives(&inside).ok());
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_pod_and_what_is_inside_it_speak_freely() {
    let (world, proxy, inner) = world();
    let second = namespace();
    veth(
        End { netns: &world.pod, device: "nest2", addresses: &["172.31.8.1/24"] },
        End { netns: &second, device: "eth0", addresses: &["172.31.8.2/24"] },
    );
    run_ip(&second, &["route", "add", "default", "via", "172.31.8.1"]);
    let mut world = world;
    cover(&mut world);
    let app = serve(&second, 80);
    let client = connect(&inner, socket("172.31.8.2", 80)).unwrap();
    let taken = accept(&app);
    assert_eq!(taken.peer.ip(), ip(INNER[0]));
    talk(&client, &taken.stream);
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_device_that_the_pod_names_is_rerouted_wherever_it_leads() {
    let (mut world, proxy, inner) = world();
    let second = namespace();
    veth(
        End { netns: &world.pod, device: "nest2", addresses: &["172.31.8.1/24"] },
        End { netns: &second, device: "eth0", addresses: &["172.31.8.2/24"] },
    );
    world.redirector.cover(&world.uid, &world.pod, &POD.map(ip), &["nest".to_owned()]).unwrap();
    let client = connect(&inner, socket("172.31.8.2", 80)).unwrap();
    let taken = accept(&proxy.outbound);
    assert_eq!((taken.peer.ip(), taken.local), (ip(INNER[0]), socket("172.31.8.2", 80)));
    talk(&client, &taken.stream);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_is_not_redirected_forwards_as_it_likes() {
    let (mut world, proxy, inner) = world();
    let (server, app) = (serve(&world.peer, 80), serve(&inner, 9090));
    let forwards = |what: &str| {
        for (inner_ip, peer_ip) in INNER.into_iter().zip(PEER) {
            let client =
                connect(&inner, socket(peer_ip, 80)).unwrap_or_else(|error| panic!("{what}: {error}"));
            talk(&client, &accept(&server).stream);
            let client = connect(&world.peer, socket(inner_ip, 9090)).unwrap();
            talk(&client, &accept(&app).stream);
        }
    };
    let leaving = world.attached.config.only_hbone();
    world.redirector.switch(world.attached.cookie, Some(leaving), &[]).unwrap();
    forwards("on its way out");
    world.redirector.detach(&world.uid, Some(&world.pod)).unwrap();
    forwards("out");
    assert!(world.redirector.forwarded().unwrap().is_empty());
    crate::failure::assert_untouched(&world.pod);
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn coverage_outlives_its_maker_and_follows_the_devices() {
    let (mut world, proxy, inner) = world();
    world.redirector = ambit_redirect::Redirector::open(&world.config).unwrap();
    let _client = connect(&inner, socket(PEER[0], 80)).unwrap();
    accept(&proxy.outbound);
    let watch = ambit_redirect::DeviceWatch::open(&world.pod).unwrap();
    assert!(!watch.drain());
    run_ip(&world.pod, &["link", "del", "nest"]);
    assert!(watch.drain() && !watch.drain());
    cover(&mut world);
    let links = std::fs::read_dir(world.config.bpffs.join("v1/device")).unwrap().count();
    assert_eq!(links, 1, "that of eth0");
}

fn nat(netns: &NetNs, rules: &str) {
    use std::process::Command;
    let script = format!("add table ip t\n{rules}\n");
    let output = run_in(netns, || {
        use std::io::Write;
        let mut child = Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn()?;
        child.stdin.take().unwrap().write_all(script.as_bytes())?;
        child.wait()
    });
    assert!(output.unwrap().unwrap().success(), "nft: {script}");
}
