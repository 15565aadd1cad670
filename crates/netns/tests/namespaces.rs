//! Entering and leaving a namespace, and what sockets created there can do.

#![cfg(feature = "testing")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};

use ambit_netns::diag::{abort, tcp_sockets};
use ambit_netns::testing::{End, namespace, veth};
use ambit_netns::{Error, NetNs, cookie_here, inspect, listener, outbound, run_in, upstream_to_app};

#[test]
#[ignore = "needs root: make test-netns"]
fn a_thread_comes_home_also_from_a_nested_visit_and_from_a_panic() {
    let (one, other) = (namespace(), namespace());
    let home = cookie_here().unwrap();
    assert_ne!(one.cookie(), other.cookie());
    let visit = || {
        let inner = run_in(&other, cookie_here).unwrap().unwrap();
        (inner, cookie_here().unwrap())
    };
    assert_eq!(run_in(&one, visit).unwrap(), (other.cookie(), one.cookie()));
    assert_eq!(cookie_here().unwrap(), home);
    let panicked = std::panic::catch_unwind(|| run_in(&one, || panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(cookie_here().unwrap(), home);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_same_namespace_is_known_by_any_descriptor() {
    let netns = namespace();
    let listener = listener(&netns, 15001).unwrap();
    let of_socket = NetNs::of_socket(&listener).unwrap();
    let clone = netns.try_clone().unwrap();
    for same in [&of_socket, &clone] {
        assert!(netns.same(same));
        assert_eq!((netns.id(), netns.cookie()), (same.id(), same.cookie()));
    }
    let here = NetNs::of_pid(std::process::id()).unwrap();
    assert!(here.same(&NetNs::current().unwrap()));
    assert!(!here.same(&netns));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn what_is_no_network_namespace_is_refused() {
    let refused = |path: &str| NetNs::from_fd(File::open(path).unwrap().into());
    assert!(matches!(refused("/dev/null"), Err(Error::NotANetNs)));
    assert!(matches!(refused("/proc/self/ns/mnt"), Err(Error::NotANetNs)));
    let error = NetNs::open("/run/netns/ambit-absent".as_ref()).unwrap_err();
    assert!(error.to_string().contains("does the pod still exist"), "{error}");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_listener_tells_what_it_is() {
    let netns = namespace();
    let facts = inspect(&listener(&netns, 15008).unwrap()).unwrap();
    assert_eq!(facts.cookie, netns.cookie());
    assert_eq!(facts.local, SocketAddr::from(([127, 0, 0, 1], 15008)));
    assert!(facts.listening && facts.transparent);
    let plain = inspect(&TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    assert!(plain.listening && !plain.transparent);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_port_that_is_taken_is_named_in_the_error() {
    let netns = namespace();
    let _first = listener(&netns, 15001).unwrap();
    let error = listener(&netns, 15001).unwrap_err().to_string();
    assert!(error.contains("15001") && error.contains("bind"), "{error}");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_connection_to_the_application_starts_inside_the_namespace() {
    let netns = namespace();
    let server = run_in(&netns, || TcpListener::bind("127.0.0.1:8080")).unwrap().unwrap();
    let stream = upstream_to_app(&netns, None, server.local_addr().unwrap()).unwrap();
    let (mut served, _) = server.accept().unwrap();
    served.write_all(b"hello").unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut buffer = [0; 5];
    { &stream }.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn an_outbound_socket_leaves_through_the_pods_device() {
    let (pod, peer) = (namespace(), namespace());
    veth(
        End { netns: &pod, device: "eth0", addresses: &["10.78.0.2/24", "fd78::2/64"] },
        End { netns: &peer, device: "eth0", addresses: &["10.78.0.1/24", "fd78::1/64"] },
    );
    for (to, from) in [("10.78.0.1:80", "10.78.0.2"), ("[fd78::1]:80", "fd78::2")] {
        let to: SocketAddr = to.parse().unwrap();
        let server = run_in(&peer, || TcpListener::bind(to)).unwrap().unwrap();
        let socket = outbound(&pod, to).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.connect(&to.into()).unwrap();
        assert_eq!(server.accept().unwrap().1.ip().to_string(), from);
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn a_connection_is_listed_with_its_ends_and_ended_from_outside() {
    let (one, other) = (namespace(), namespace());
    veth(
        End { netns: &one, device: "eth0", addresses: &["10.79.0.1/24", "fd79::1/64"] },
        End { netns: &other, device: "eth0", addresses: &["10.79.0.2/24", "fd79::2/64"] },
    );
    for address in ["10.79.0.2:8080", "[fd79::2]:8080"] {
        let address: SocketAddr = address.parse().unwrap();
        let server = run_in(&other, || TcpListener::bind(address)).unwrap().unwrap();
        let mut client = run_in(&one, || std::net::TcpStream::connect(address)).unwrap().unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());

        let listed = tcp_sockets(&one).unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!((listed[0].local, listed[0].peer, listed[0].listens), (local, peer, false));
        assert!(listed[0].cgroup.is_some());
        let there = tcp_sockets(&other).unwrap();
        assert_eq!(there.iter().filter(|socket| socket.listens).count(), 1, "{there:?}");

        assert!(abort(&one, &listed[0]).unwrap());
        assert!(!abort(&one, &listed[0]).unwrap(), "it is gone");
        let errors = [client.read(&mut [0]), accepted.read(&mut [0])];
        let kinds = errors.map(|result| result.unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset]);
        assert!(tcp_sockets(&one).unwrap().is_empty());
    }
}
