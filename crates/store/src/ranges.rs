//! Address ranges that may belong to the cluster's pods and services.
//!
//! No API provides them: many networks do not assign addresses from a node's `podCIDR`, and a node
//! that joins while the operator is down adds a range that this node cannot know. Invariant: every
//! private address, and every address near a known pod or service, may therefore belong to the
//! cluster; only a node's own address certainly does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambit_model::NetworkAddress;
use imbl::HashMap;

/// Prefix length of IPv4 addresses that count as near each other: networks rarely assign smaller
/// blocks to a node.
const BLOCK_BITS_V4: u32 = 24;
/// The same for IPv6.
const BLOCK_BITS_V6: u32 = 64;
/// Private ranges (RFC 1918, RFC 6598), and class E, from which some clusters number pods.
const PRIVATE_V4: [(Ipv4Addr, u32); 5] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Known addresses, with reference counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    /// Base addresses of blocks that contain a pod or service.
    blocks: HashMap<NetworkAddress, u32>,
    /// Addresses of nodes.
    nodes: HashMap<NetworkAddress, u32>,
}

impl Ranges {
    /// Adds the address of a pod or service.
    pub(crate) fn enter(&mut self, address: &NetworkAddress) {
        *self.blocks.entry(block(address)).or_default() += 1;
    }

    /// Reverts one [`Self::enter`].
    pub(crate) fn leave(&mut self, address: &NetworkAddress) {
        count_down(&mut self.blocks, &block(address));
    }

    /// Adds the address of a node.
    pub(crate) fn enter_node(&mut self, address: NetworkAddress) {
        *self.nodes.entry(address).or_default() += 1;
    }

    /// Reverts one [`Self::enter_node`].
    pub(crate) fn leave_node(&mut self, address: &NetworkAddress) {
        count_down(&mut self.nodes, address);
    }

    /// Whether an unknown address may belong to a pod or service.
    pub(crate) fn may_hold(&self, address: &NetworkAddress) -> bool {
        !self.nodes.contains_key(address) && (is_private(address.address) || self.neighbours(address))
    }

    /// Whether a pod or service is known near the address.
    pub(crate) fn neighbours(&self, address: &NetworkAddress) -> bool {
        self.blocks.contains_key(&block(address))
    }
}

fn count_down(counts: &mut HashMap<NetworkAddress, u32>, key: &NetworkAddress) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        Some(_) | None => drop(counts.remove(key)),
    }
}

fn block(of: &NetworkAddress) -> NetworkAddress {
    let address = match of.address.to_canonical() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(first_v4(ip, BLOCK_BITS_V4)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - BLOCK_BITS_V6))).into(),
    };
    NetworkAddress { network: of.network.clone(), address }
}

fn first_v4(ip: Ipv4Addr, bits: u32) -> u32 {
    ip.to_bits() & (u32::MAX << (32 - bits))
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => PRIVATE_V4.iter().any(|(first, bits)| first_v4(ip, *bits) == first.to_bits()),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NetworkAddress {
        NetworkAddress { network: "".into(), address: text.parse().unwrap() }
    }

    #[test]
    fn private_addresses_and_neighbours_may_be_the_clusters_and_a_nodes_own_is_not() {
        let mut ranges = Ranges::default();
        for (address, expected) in [
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.9.9", true),
            ("100.127.0.1", true),
            ("100.128.0.1", false),
            ("240.0.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("fd77::1", true),
            ("8.8.8.8", false),
            ("169.254.169.254", false),
            ("127.0.0.1", false),
            ("2001:db8::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(ranges.may_hold(&at(address)), expected, "{address}");
        }
        for (pod, near, far) in
            [("8.8.8.1", "8.8.8.8", "8.8.9.8"), ("2001:db8::1", "2001:db8::2:1", "2001:db8:0:1::1")]
        {
            ranges.enter(&at(pod));
            ranges.enter(&at(pod));
            ranges.leave(&at(pod));
            assert_eq!((ranges.may_hold(&at(near)), ranges.may_hold(&at(far))), (true, false), "{pod}");
            ranges.leave(&at(pod));
            assert!(!ranges.may_hold(&at(near)), "{pod}");
        }
        ranges.enter_node(at("10.1.2.3"));
        assert!(!ranges.may_hold(&at("10.1.2.3")) && ranges.may_hold(&at("10.1.2.4")));
        ranges.leave_node(&at("10.1.2.3"));
        assert!(ranges.may_hold(&at("10.1.2.3")));
    }
}
