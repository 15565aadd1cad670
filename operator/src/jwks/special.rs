//! Addresses from which key sets are never fetched.
//!
//! Invariant: the author of a policy must not be able to read what only the operator, its node or
//! its cloud can reach, in whatever notation the address is written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services of clouds that are not link-local: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// The same for IPv6: AWS, Google, Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Rejects the pod itself, and addresses that only its node or its cloud serves, such as metadata
/// services, in every notation.
pub(super) fn is_allowed(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // 0.0.0.0/8 means this host (RFC 1122 3.2.1.3).
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || ip.is_multicast()
                || ip.is_broadcast()
                || METADATA_V4.contains(&ip))
        }
        IpAddr::V6(ip) => match embedded(ip) {
            Some(v4) => is_allowed(v4.into()),
            None => {
                let is_local_nat64 = ip.segments()[..3] == [0x64, 0xff9b, 1];
                let is_teredo = ip.segments()[..2] == [0x2001, 0];
                !(ip.is_multicast()
                    || ip.is_unicast_link_local()
                    || is_local_nat64
                    || is_teredo
                    || METADATA_V6.contains(&ip))
            }
        },
    }
}

/// The IPv4 address embedded in an IPv6 address: mapped and compatible (RFC 4291 2.5.5; `::` and
/// `::1` yield addresses of this host), NAT64 (RFC 6052), 6to4 (RFC 3056). NAT64 networks with a
/// prefix of their own cannot be recognized; Teredo is rejected as a whole.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => of(g, h),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_local_to_the_operator_or_its_cloud_is_refused_in_every_form() {
        for ip in ["10.0.0.1", "100.64.0.1", "93.184.216.34", "fd00::1", "64:ff9b::5db8:d822", "2606:2800::1"]
        {
            assert!(is_allowed(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "::ffff:127.0.0.1",
            "fe80::1",
            "0.0.0.0",
            "0.0.0.1",
            "224.0.0.1",
            "::",
            "::1",
            "::127.0.0.1",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:42::42",
            "100.100.100.200",
            "::ffff:100.100.100.200",
            "168.63.129.16",
            "64:ff9b::a83f:8110",
            "192.0.0.192",
        ] {
            assert!(!is_allowed(ip.parse().unwrap()), "{ip}");
        }
    }
}
