//! Address representation shared with the eBPF programs.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// 128 bits as four words in network byte order; IPv4 is v4-mapped.
pub type Address = [u32; 4];

/// The unspecified IPv6 address; also marks an empty slot in a set of addresses.
pub const ANY: Address = [0; 4];
/// Third word of a v4-mapped address.
pub const MAPPED_PREFIX: u32 = 0xffff_u32.to_be();

const LOOPBACK6_LAST_WORD: u32 = 1_u32.to_be();
const LOOPBACK4: u32 = 0x7f00_0000_u32.to_be();
const LOOPBACK4_MASK: u32 = 0xff00_0000_u32.to_be();
const LINK_LOCAL6: u32 = 0xfe80_0000_u32.to_be();
const LINK_LOCAL6_MASK: u32 = 0xffc0_0000_u32.to_be();

/// The v4-mapped form of an IPv4 word in network byte order.
#[inline(always)]
#[must_use]
pub const fn mapped(ip4: u32) -> Address {
    [0, 0, MAPPED_PREFIX, ip4]
}

/// The IPv4 word of a v4-mapped address.
#[inline(always)]
#[must_use]
pub const fn mapped_ip4(address: &Address) -> Option<u32> {
    let [a, b, c, d] = *address;
    if a | b == 0 && c == MAPPED_PREFIX { Some(d) } else { None }
}

/// Whether the address is 127.0.0.0/8, mapped or not, or `::1`.
#[inline(always)]
#[must_use]
pub const fn is_loopback(address: &Address) -> bool {
    let [a, b, c, d] = *address;
    a | b == 0
        && ((c == MAPPED_PREFIX && d & LOOPBACK4_MASK == LOOPBACK4) || (c == 0 && d == LOOPBACK6_LAST_WORD))
}

/// Whether the address is of `fe80::/10`.
#[inline(always)]
pub(crate) const fn is_link_local6(address: &Address) -> bool {
    address[0] & LINK_LOCAL6_MASK == LINK_LOCAL6
}

/// Converts an address to words.
#[must_use]
pub fn words(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip4) => mapped(u32::from_ne_bytes(ip4.octets())),
        IpAddr::V6(ip6) => {
            let [a, b, c, d, e, f, g, h] = ip6.segments();
            let word = |high: u16, low: u16| ((u32::from(high) << 16) | u32::from(low)).to_be();
            [word(a, b), word(c, d), word(e, f), word(g, h)]
        }
    }
}

/// Converts words to an address.
#[must_use]
pub fn ip(address: &Address) -> IpAddr {
    mapped_ip4(address).map_or_else(
        || {
            let [a, b, c, d] = address.map(|word| u128::from(u32::from_be(word)));
            Ipv6Addr::from_bits(a << 96 | b << 64 | c << 32 | d).into()
        },
        |ip4| Ipv4Addr::from(ip4.to_ne_bytes()).into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for text in ["10.1.2.3", "fd00::1:5", "::1", "2001:db8:1:2:3:4:5:6"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(ip(&words(address)), address);
        }
    }
}
