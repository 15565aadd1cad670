//! Keys and values of the maps.

use core::fmt;
use core::net::IpAddr;

use crate::address::{ANY, Address, mapped_ip4, words};

/// How many addresses of each family a pod may have.
pub const ADDRESSES_MAX: usize = 4;

/// Names of the maps: symbols in the object, file names under the pin directory.
pub mod map {
    /// Hash: netns cookie to [`PodConfig`](crate::PodConfig). The one write that switches redirection.
    pub const PODS: &str = "PODS";
    /// Socket hash: [`ListenerKey`](crate::ListenerKey) to listening socket.
    pub const LISTENERS: &str = "LISTENERS";
    /// LRU hash: [`Flow`](crate::Flow) of a kubelet probe to the boot time of its connect, in nanoseconds.
    pub const PROBES: &str = "PROBES";
    /// Hash: address of an enrolled pod to the cookie of its network namespace.
    pub const POD_IPS: &str = "POD_IPS";
    /// Hash: id of a cgroup whose tasks are never captured, to 1.
    pub const PROXIES: &str = "PROXIES";
    /// Array of one: cookie of the network namespace this instance of a program serves. Never pinned.
    pub const NETNS: &str = "NETNS";
}

/// What [`PodConfig::flags`] may hold.
pub mod flag {
    /// Outbound IPv4, mapped or not, goes to the outbound listener.
    pub const CAPTURE_V4: u32 = 1;
    /// Outbound IPv6 goes to the outbound listener.
    pub const CAPTURE_V6: u32 = 2;
    /// Inbound connections on any port but HBONE's go to the plaintext listener.
    pub const CAPTURE_INBOUND: u32 = 4;
    /// Inbound connections on port 15008 go to the HBONE listener.
    pub const HBONE: u32 = 8;
}

/// What a listener in a pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Kind {
    /// Connections the pod opens.
    Outbound = 0,
    /// Connections to the pod that came without a tunnel.
    InboundPlaintext = 1,
    /// Tunnels to the pod.
    Hbone = 2,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::InboundPlaintext, Self::Hbone];

    /// The kind a map key holds.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::Outbound),
            1 => Some(Self::InboundPlaintext),
            2 => Some(Self::Hbone),
            _ => None,
        }
    }

    /// Port of `127.0.0.1` that the listener of this kind is bound to.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Outbound => 15001,
            Self::InboundPlaintext => 15006,
            Self::Hbone => crate::HBONE_PORT,
        }
    }
}

/// Key of `LISTENERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerKey {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// A [`Kind`].
    pub kind: u32,
    /// Zero; keeps the key free of holes.
    pub pad: u32,
}

impl ListenerKey {
    /// The key of one listener of one pod.
    #[inline(always)]
    #[must_use]
    pub const fn new(cookie: u64, kind: Kind) -> Self {
        Self { cookie, kind: kind as u32, pad: 0 }
    }
}

/// Key of `PROBES`: one connection as the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Address of the kubelet's socket.
    pub remote: Address,
    /// Address of the pod.
    pub local: Address,
    /// Port of the kubelet's socket, host byte order.
    pub remote_port: u32,
    /// Port of the pod, host byte order.
    pub local_port: u32,
}

/// Value of `PODS`: what is redirected in one network namespace, and which addresses are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PodConfig {
    /// Bits of [`flag`].
    pub flags: u32,
    /// Own IPv4 addresses, network byte order; 0 is an empty slot.
    pub ip4: [u32; ADDRESSES_MAX],
    /// Own IPv6 addresses; [`ANY`] is an empty slot.
    pub ip6: [Address; ADDRESSES_MAX],
}

impl PodConfig {
    /// Everything of a pod's families redirected.
    ///
    /// A family without an address is left alone, so that an application still learns at once that it has no route.
    pub fn enrolled(addresses: &[IpAddr]) -> Result<Self, TooManyAddresses> {
        let mut config = Self {
            flags: flag::CAPTURE_INBOUND | flag::HBONE,
            ip4: [0; ADDRESSES_MAX],
            ip6: [ANY; ADDRESSES_MAX],
        };
        for &ip in addresses {
            let address = words(ip.to_canonical());
            let free = if let Some(ip4) = mapped_ip4(&address) {
                config.flags |= flag::CAPTURE_V4;
                config.ip4.iter_mut().find(|slot| **slot == 0 || **slot == ip4).map(|slot| *slot = ip4)
            } else {
                config.flags |= flag::CAPTURE_V6;
                config
                    .ip6
                    .iter_mut()
                    .find(|slot| **slot == ANY || **slot == address)
                    .map(|slot| *slot = address)
            };
            free.ok_or(TooManyAddresses)?;
        }
        Ok(config)
    }

    /// Nothing captured any more, but peers that still tunnel are served.
    #[must_use]
    pub const fn only_hbone(self) -> Self {
        Self { flags: flag::HBONE, ..self }
    }

    /// Whether the address is the pod's own.
    #[inline(always)]
    #[must_use]
    pub const fn owns(&self, address: &Address) -> bool {
        if let Some(ip) = mapped_ip4(address) {
            let [a, b, c, d] = self.ip4;
            ip != 0 && (ip == a || ip == b || ip == c || ip == d)
        } else {
            let [a, b, c, d] = &self.ip6;
            !same(address, &ANY)
                && (same(address, a) || same(address, b) || same(address, c) || same(address, d))
        }
    }

    /// The addresses that are set.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        let ip4 = self.ip4.into_iter().filter(|ip| *ip != 0).map(crate::address::mapped);
        ip4.chain(self.ip6.into_iter().filter(|ip| *ip != ANY))
    }
}

// Written out: `==` on arrays becomes a call to `memcmp`, which the kernel does not have.
#[inline(always)]
pub(crate) const fn same(left: &Address, right: &Address) -> bool {
    (left[0] ^ right[0]) | (left[1] ^ right[1]) | (left[2] ^ right[2]) | (left[3] ^ right[3]) == 0
}

/// A pod has more addresses of one family than a map value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyAddresses;

impl fmt::Display for TooManyAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {ADDRESSES_MAX} addresses of one family")
    }
}

impl core::error::Error for TooManyAddresses {}
