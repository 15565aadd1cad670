//! Tables for the decisions.

extern crate std;

use core::mem::{offset_of, size_of};
use core::net::IpAddr;
use std::string::String;

use super::*;
use crate::address::words;
use crate::layout::{
    ADDRESSES_MAX, Flow, ListenerKey, PROBE_PORTS_MAX, PodAddress, ProbePorts, TooManyAddresses,
};

const DUAL: [&str; 3] = ["10.1.0.5", "10.9.0.5", "fd00::5"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(addresses: &[&str]) -> PodConfig {
    let addresses: std::vec::Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
    PodConfig::enrolled(&addresses).unwrap()
}

#[test]
fn keys_and_values_have_no_holes() {
    assert_eq!(size_of::<ListenerKey>(), 16);
    assert_eq!(size_of::<Flow>(), 48);
    assert_eq!(size_of::<PodAddress>(), 8 + 2 * PROBE_PORTS_MAX);
    assert_eq!(size_of::<PodConfig>(), 4 + 16 + 64);
    assert_eq!(offset_of!(PodConfig, ip6), 20);
}

#[test]
fn outbound_connections_are_captured_except_to_oneself() {
    let dual = pod(&DUAL);
    let only_v4 = pod(&["10.1.0.5"]);
    let only_v6 = pod(&["fd00::5"]);
    let table = [
        ("v4", dual, "10.2.0.1", Outbound::Capture),
        ("v4 of a mapped address", dual, "::ffff:10.2.0.1", Outbound::Capture),
        ("v6", dual, "fd00::6", Outbound::Capture),
        ("metadata address", dual, "169.254.169.254", Outbound::Capture),
        ("loopback", dual, "127.0.0.1", Outbound::Pass),
        ("loopback net", dual, "127.9.9.9", Outbound::Pass),
        ("mapped loopback", dual, "::ffff:127.0.0.1", Outbound::Pass),
        ("loopback v6", dual, "::1", Outbound::Pass),
        ("own v4", dual, "10.1.0.5", Outbound::Pass),
        ("own second v4", dual, "10.9.0.5", Outbound::Pass),
        ("own v4, mapped", dual, "::ffff:10.1.0.5", Outbound::Pass),
        ("own v6", dual, "fd00::5", Outbound::Pass),
        ("unspecified v4", dual, "0.0.0.0", Outbound::Pass),
        ("unspecified v6", dual, "::", Outbound::Pass),
        ("link local v6", dual, "fe80::1", Outbound::Refuse),
        ("v6 of a pod without v6", only_v4, "fd00::6", Outbound::Unreachable),
        ("v4 of a pod without v4", only_v6, "10.2.0.1", Outbound::Unreachable),
        ("mapped v4 of a pod without v4", only_v6, "::ffff:10.2.0.1", Outbound::Unreachable),
        ("loopback v6 of a pod without v6", only_v4, "::1", Outbound::Pass),
        ("v6 of a pod without v6 that leaves", only_v4.only_hbone(), "fd00::6", Outbound::Pass),
        ("while only tunnels are served", dual.only_hbone(), "10.2.0.1", Outbound::Pass),
    ];
    for (name, pod, destination, expected) in table {
        assert_eq!(outbound(&pod, &words(ip(destination))), expected, "{name}");
    }
}

#[test]
fn inbound_connections_go_where_the_pod_state_says() {
    let on = pod(&DUAL);
    let leaving = on.only_hbone();
    let eth = 2;
    let lo = 1;
    let out = Inbound::Steer(Kind::Outbound);
    let hbone = Inbound::Steer(Kind::Hbone);
    let judge = Inbound::Judge(Kind::InboundPlaintext);
    let table = [
        ("captured outbound", on, lo, "10.1.0.5", "10.2.0.1", 80, out),
        ("captured outbound v6", on, lo, "fd00::5", "fd00::6", 80, out),
        ("captured while leaving", leaving, lo, "10.1.0.5", "10.2.0.1", 80, out),
        (
            "captured, bound to an address that is not listed",
            on,
            lo,
            "203.0.113.9",
            "10.2.0.1",
            80,
            Inbound::Judge(Kind::Outbound),
        ),
        (
            "proxy to an address that is not listed",
            on,
            lo,
            "10.2.0.1",
            "203.0.113.9",
            80,
            Inbound::Judge(Kind::Outbound),
        ),
        ("own address that is not listed", on, lo, "203.0.113.9", "203.0.113.9", 80, Inbound::Pass),
        ("localhost", on, lo, "127.0.0.1", "127.0.0.1", 80, Inbound::Pass),
        ("proxy to application", on, lo, "10.2.0.1", "10.1.0.5", 80, Inbound::Pass),
        ("from outside", on, eth, "10.2.0.1", "10.1.0.5", 80, judge),
        ("from outside v6", on, eth, "fd00::6", "fd00::5", 80, judge),
        ("to an address that is not listed", on, eth, "10.2.0.1", "203.0.113.9", 80, judge),
        ("tunnel", on, eth, "10.2.0.1", "10.1.0.5", 15008, hbone),
        ("tunnel while leaving", leaving, eth, "10.2.0.1", "10.1.0.5", 15008, hbone),
        ("tunnel to oneself", on, eth, "10.1.0.5", "10.1.0.5", 15008, hbone),
        ("plaintext while leaving", leaving, eth, "10.2.0.1", "10.1.0.5", 80, Inbound::Pass),
        ("own address", on, eth, "10.1.0.5", "10.1.0.5", 80, Inbound::Pass),
        ("own other address", on, eth, "10.1.0.5", "10.9.0.5", 80, Inbound::Pass),
        ("loopback to own address", on, eth, "127.0.0.1", "10.1.0.5", 80, Inbound::Pass),
    ];
    for (name, pod, ingress_ifindex, remote, local, local_port, expected) in table {
        let arrival =
            Arrival { ingress_ifindex, remote: words(ip(remote)), local: words(ip(local)), local_port };
        assert_eq!(inbound(&pod, &arrival), expected, "{name}");
    }
}

#[test]
fn a_pod_with_too_many_addresses_is_refused() {
    let addresses: std::vec::Vec<IpAddr> =
        (0..=ADDRESSES_MAX).map(|last| ip(&std::format!("10.0.0.{}", last + 1))).collect();
    assert_eq!(PodConfig::enrolled(&addresses), Err(TooManyAddresses));
    assert!(PodConfig::enrolled(&addresses[..ADDRESSES_MAX]).is_ok());
}

#[test]
fn an_address_listed_twice_takes_one_slot() {
    let config = pod(&["10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "fd00::1"]);
    let addresses: std::vec::Vec<Address> = config.addresses().collect();
    assert_eq!(addresses, [words(ip("10.0.0.1")), words(ip("fd00::1"))]);
}

#[test]
fn every_kind_comes_back_from_its_number() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_u32(kind as u32), Some(kind));
    }
    assert_eq!(Kind::from_u32(3), None);
    let text: String = std::format!("{TooManyAddresses}");
    assert!(text.contains('4'));
}

#[test]
fn probe_ports_are_those_given_and_never_zero() {
    let ports = ProbePorts::new([8080, 9090]);
    assert!(ports.contains(8080) && ports.contains(9090));
    assert!(!ports.contains(0) && !ports.contains(80) && !ports.contains(65_536 + 8080));
    assert!(!ProbePorts::default().contains(0));
    let many = ProbePorts::new(1..=u16::MAX);
    assert!(many.contains(PROBE_PORTS_MAX as u32) && !many.contains(PROBE_PORTS_MAX as u32 + 1));
}
