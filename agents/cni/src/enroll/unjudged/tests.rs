//! One table: a socket of each kind, and whether it is closed.

use ambit_netns::diag::SocketId;

use super::*;

const APP: u64 = 7;
const PROXY: u64 = 9;

fn socket(local: &str, peer: &str, cgroup: Option<u64>) -> TcpSocket {
    TcpSocket {
        local: local.parse().unwrap(),
        peer: peer.parse().unwrap(),
        listens: peer.ends_with(":0"),
        cgroup,
        id: SocketId::default(),
    }
}

#[test]
fn only_what_nobody_judged_goes() {
    let kept = [
        socket("0.0.0.0:8080", "0.0.0.0:0", Some(APP)),
        // A connection of the pod to itself.
        socket("127.0.0.1:40000", "127.0.0.1:8080", Some(APP)),
        socket("10.0.0.2:8080", "10.0.0.2:40001", Some(APP)),
        socket("10.0.0.2:40001", "10.0.0.2:8080", Some(APP)),
        // Captured outbound: the proxy accepted it with its original destination, and tunnels it.
        socket("10.0.0.2:40002", "10.0.9.9:80", Some(APP)),
        socket("10.0.9.9:80", "10.0.0.2:40002", Some(PROXY)),
        socket("10.0.0.2:40003", "10.0.9.9:15008", Some(PROXY)),
        // Authorized inbound: the proxy connects to the application with the client's address.
        socket("10.0.0.2:15008", "10.0.9.8:50000", Some(PROXY)),
        socket("10.0.9.8:1025", "10.0.0.2:8080", Some(PROXY)),
        socket("10.0.0.2:8080", "10.0.9.8:1025", Some(APP)),
        // Not accepted by the proxy yet.
        socket("[fd00::9]:80", "[fd00::2]:40009", None),
        socket("[fd00::2]:40009", "[fd00::9]:80", Some(APP)),
    ];
    let (out, inward) = (
        socket("10.0.0.2:40010", "10.0.9.9:80", Some(APP)),
        [
            socket("10.0.0.2:8080", "10.0.9.7:50001", Some(APP)),
            socket("10.0.0.2:8080", "10.0.9.7:50002", None),
            socket("[fd00::2]:8080", "[fd00::7]:50002", Some(APP)),
        ],
    );
    let all: Vec<TcpSocket> = kept.iter().chain([&out]).chain(&inward).cloned().collect();
    let gone: Vec<&TcpSocket> = [&out].into_iter().chain(&inward).collect();
    assert_eq!(unjudged(&all, &[PROXY], Inbound::Captured), gone);
    assert_eq!(unjudged(&all, &[PROXY], Inbound::Bypassed), [&out]);
    assert!(unjudged(&kept, &[PROXY], Inbound::Captured).is_empty());
}
