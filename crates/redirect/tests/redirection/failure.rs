//! Without a proxy, connections are refused at once.

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;

use ambit_netns::{NetNs, listener, run_in};
use ambit_redirect::{Config, Error, Kind, Redirector};
use socket2::SockRef;

use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_without_a_proxy_is_refused_at_once_in_both_directions() {
    let mut world = World::attached();
    let (_app, _peer_app) = (serve(&world.pod, 8080), serve(&world.peer, 80));
    world.switch_on();
    assert_closed(&world);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_proxy_that_ends_empties_its_slots() {
    let (world, proxy) = World::enrolled();
    let (_app, _peer_app) = (serve(&world.pod, 8080), serve(&world.peer, 80));
    assert_eq!(world.redirector.armed().unwrap().len(), 3);
    proxy.end(&world);
    assert_closed(&world);
    assert!(world.redirector.armed().unwrap().is_empty());
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_listener_that_was_shut_down_counts_as_none() {
    let (world, proxy) = World::enrolled();
    for listener in [&proxy.outbound, &proxy.plaintext, &proxy.hbone] {
        SockRef::from(listener).shutdown(Shutdown::Both).unwrap();
    }
    let (_app, _peer_app) = (serve(&world.pod, 8080), serve(&world.peer, 80));
    assert_closed(&world);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn an_emptied_slot_refuses_and_a_new_listener_takes_over() {
    let (mut world, proxy) = World::enrolled();
    let cookie = world.attached.cookie;
    for kind in Kind::ALL {
        world.redirector.disarm(cookie, kind).unwrap();
        world.redirector.disarm(cookie, kind).unwrap();
    }
    assert_closed(&world);
    drop(proxy);
    let proxy = world.arm();
    let _client = connect(&world.pod, socket(PEER[0], 80)).unwrap();
    assert_eq!(accept(&proxy.outbound).local, socket(PEER[0], 80));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_listener_that_is_not_what_it_should_be_is_not_armed() {
    let mut world = World::attached();
    let cookie = world.attached.cookie;
    let foreign = listener(&world.peer, Kind::Outbound.port()).unwrap();
    let other_port = listener(&world.pod, 15099).unwrap();
    let exposed = serve(&world.pod, Kind::Hbone.port());
    let local = SocketAddr::from(([127, 0, 0, 1], Kind::InboundPlaintext.port()));
    let opaque = run_in(&world.pod, || std::net::TcpListener::bind(local)).unwrap().unwrap();
    let shut = listener(&world.pod, Kind::Outbound.port()).unwrap();
    SockRef::from(&shut).shutdown(Shutdown::Both).unwrap();
    for (name, kind, listener) in [
        ("network namespace", Kind::Outbound, &foreign),
        ("another address", Kind::Outbound, &other_port),
        ("another address", Kind::Hbone, &exposed),
        ("IP_TRANSPARENT", Kind::InboundPlaintext, &opaque),
        ("does not listen", Kind::Outbound, &shut),
    ] {
        let error = world.redirector.arm(cookie, kind, listener.as_fd()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    assert!(world.redirector.armed().unwrap().is_empty());
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_node_without_the_file_systems_is_told_which_to_mount() {
    let world = World::attached();
    let no_bpf = Config { bpffs: "/proc/ambit".into(), ..world.config.clone() };
    let no_cgroup = Config { cgroup: "/proc".into(), ..world.config.clone() };
    for (config, wanted) in [(no_bpf, "mount -t bpf"), (no_cgroup, "mount -t cgroup2")] {
        let error = Redirector::open(&config).err().unwrap();
        assert!(matches!(error, Error::Unmounted { .. }));
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_pod_that_cannot_be_attached_is_left_as_it_was() {
    let mut world = World::attached();
    let uid = "never-attached";
    // The kernel rejects a route whose source address does not exist.
    let error = world.redirector.attach(uid, &world.peer, &[ip("192.0.2.1")]).unwrap_err();
    assert!(matches!(error, Error::Route { .. }), "{error}");
    assert_untouched(&world.peer);
    assert!(world.redirector.attached().unwrap().iter().all(|pod| pod.uid != uid));
    for uid in ["", "..", "a/b", "a.b"] {
        assert!(matches!(world.redirector.attach(uid, &world.peer, &[]), Err(Error::Uid(_))));
    }
}

pub(crate) fn assert_untouched(netns: &NetNs) {
    for family in ["-4", "-6"] {
        let rules = ambit_netns::testing::ip(netns, &[family, "rule", "show"]);
        assert!(!rules.contains("0x111") && !rules.contains("0x112"), "{rules}");
        let routes = ambit_netns::testing::ip(netns, &[family, "route", "show", "table", "all"]);
        assert!(!routes.contains("table 100"), "{routes}");
    }
    for name in ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"] {
        let read = || std::fs::read_to_string(format!("/proc/sys/net/{name}"));
        assert_eq!(run_in(netns, read).unwrap().unwrap().trim(), "0", "{name}");
    }
}

fn assert_closed(world: &World) {
    let out = [socket(PEER[0], 80), socket(PEER[1], 80), socket(&mapped(PEER[0]), 80)];
    let into = [socket(POD[0], 8080), socket(POD[1], 8080), socket(POD[0], 15008)];
    for (netns, to) in out.map(|to| (&world.pod, to)).into_iter().chain(into.map(|to| (&world.peer, to))) {
        let error = connect_within(netns, to, AT_ONCE).expect_err("nobody should answer");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
}
