//! Inbound connections of a pod.

use std::io::ErrorKind;
use std::net::TcpListener;

use ambit_netns::{run_in, upstream_to_app};

use crate::fixture::*;

#[test]
#[ignore = "needs root: make test-netns"]
fn plaintext_is_captured_and_the_application_still_sees_its_client() {
    let (world, proxy) = World::enrolled();
    let server = serve(&world.pod, 8080);
    for (client_ip, pod_ip) in [(PEER[0], POD[0]), (PEER[1], POD[1])] {
        let client = connect(&world.peer, socket(pod_ip, 8080)).unwrap();
        let taken = accept(&proxy.plaintext);
        assert_eq!((taken.peer.ip(), taken.local), (ip(client_ip), socket(pod_ip, 8080)));
        let upstream = upstream_to_app(&world.pod, Some(taken.peer.ip()), taken.local).unwrap();
        let served = accept(&server);
        assert_eq!(served.peer.ip(), ip(client_ip), "the application sees the client");
        assert_ne!(served.peer.port(), taken.peer.port());
        assert_eq!(served.local, socket(pod_ip, 8080));
        upstream.set_nonblocking(false).unwrap();
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        talk(&upstream, &served.stream);
        talk(&client, &taken.stream);
    }
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_proxy_learns_at_once_that_the_application_is_not_there() {
    let (world, _proxy) = World::enrolled();
    for (client_ip, pod_ip) in [(PEER[0], POD[0]), (PEER[1], POD[1])] {
        for source in [Some(ip(client_ip)), None] {
            let error = match upstream_to_app(&world.pod, source, socket(pod_ip, 9)) {
                // For a local address the refusal may come before the call returns.
                Err(ambit_netns::Error::Socket { source, .. }) => source,
                Err(other) => panic!("{other}"),
                Ok(upstream) => {
                    upstream.set_nonblocking(false).unwrap();
                    upstream.set_write_timeout(Some(AT_ONCE)).unwrap();
                    settled(&upstream).expect("an error")
                }
            };
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{source:?}");
        }
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn without_a_source_the_application_sees_its_own_address() {
    let (world, proxy) = World::enrolled();
    let server = serve(&world.pod, 8080);
    for pod_ip in POD {
        let _upstream = upstream_to_app(&world.pod, None, socket(pod_ip, 8080)).unwrap();
        assert_eq!(accept(&server).peer.ip(), ip(pod_ip));
    }
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn tunnels_are_steered_to_their_own_listener() {
    let (world, proxy) = World::enrolled();
    let thief = run_in(&world.pod, || TcpListener::bind((POD[0], 15008))).unwrap().unwrap();
    for pod_ip in POD {
        let client = connect(&world.peer, socket(pod_ip, 15008)).unwrap();
        let taken = accept(&proxy.hbone);
        assert_eq!(taken.local, socket(pod_ip, 15008));
        talk(&client, &taken.stream);
    }
    thief.set_nonblocking(true).unwrap();
    assert_eq!(thief.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "no application takes tunnels");
    proxy.assert_idle();
}

#[test]
#[ignore = "needs root: make test-netns"]
fn no_port_of_the_application_is_taken_on_the_pods_address() {
    let (world, proxy) = World::enrolled();
    let server = run_in(&world.pod, || TcpListener::bind((POD[0], 15006))).unwrap().unwrap();
    let _client = connect(&world.peer, socket(POD[0], 15006)).unwrap();
    let taken = accept(&proxy.plaintext);
    let _upstream = upstream_to_app(&world.pod, Some(taken.peer.ip()), taken.local).unwrap();
    assert_eq!(accept(&server).peer.ip(), ip(PEER[0]));
}

/// The error of a connection attempt, once it has failed.
fn settled(stream: &std::net::TcpStream) -> Option<std::io::Error> {
    use std::io::Write;
    let written = { stream }.write_all(b"x");
    stream.take_error().unwrap().or(written.err())
}
