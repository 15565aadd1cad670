//! Keys and values of the maps.

use core::fmt;
use core::net::IpAddr;

use crate::address::{ANY, Address, mapped_ip4, words};

/// How many addresses of each family a pod may have.
pub const ADDRESSES_MAX: usize = 4;
/// How many ports of a pod the kubelet may probe; probes of further ones are judged as plaintext.
pub const PROBE_PORTS_MAX: usize = 32;

/// Names of the maps: symbols in the object, file names under the pin directory.
pub mod map {
    /// Hash: netns cookie to [`PodConfig`](crate::PodConfig). The one write that switches redirection.
    pub const PODS: &str = "PODS";
    /// Socket hash: [`ListenerKey`](crate::ListenerKey) to listening socket.
    pub const LISTENERS: &str = "LISTENERS";
    /// LRU hash: [`Flow`](crate::Flow) that may reach the application unjudged, to the boot time of its connect in
    /// nanoseconds: a probe of the kubelet, or what a proxy passes on after it judged. Used up by its first packet.
    pub const ADMITTED: &str = "ADMITTED";
    /// Trie: [`Opening`](crate::Opening) of what the kubelet may send on an admitted connection, to
    /// [`REST`](crate::REST) or 0.
    pub const OPENINGS: &str = "OPENINGS";
    /// Hash: cookie of a socket of the kubelet whose connection was admitted, to its [`Probing`](crate::Probing).
    pub const PROBING: &str = "PROBING";
    /// Hash: address of an enrolled pod to its [`PodAddress`](crate::PodAddress).
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Hash: id of a cgroup whose tasks are never captured, to 1.
    pub const PROXIES: &str = "PROXIES";
    /// Array of one: cookie of the network namespace this instance of a program serves. Never pinned.
    pub const NETNS: &str = "NETNS";
    /// Array: indexes of the devices that lead out of the pod this instance serves; 0 is an empty slot. Never pinned.
    pub const OUTER: &str = "OUTER";
    /// Hash: [`Forwarded`](crate::Forwarded) to packets that were dropped.
    pub const FORWARDED: &str = "FORWARDED";
    /// Maps of earlier versions whose pins are removed.
    pub const RETIRED: [&str; 2] = ["PROBES", "POD_IPS"];
}

/// What [`PodConfig::flags`] may hold.
pub mod flag {
    /// Outbound IPv4, mapped or not, goes to the outbound listener.
    pub const CAPTURE_V4: u32 = 1;
    /// Outbound IPv6 goes to the outbound listener.
    pub const CAPTURE_V6: u32 = 2;
    /// Outbound connections are captured; those of a family whose bit is missing are refused.
    pub const CAPTURE: u32 = CAPTURE_V4 | CAPTURE_V6;
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

/// Ports of a pod that its probes and lifecycle hooks name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ProbePorts([u16; PROBE_PORTS_MAX]);

impl ProbePorts {
    /// The first [`PROBE_PORTS_MAX`] of them.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut slots = [0; PROBE_PORTS_MAX];
        slots.iter_mut().zip(ports).for_each(|(slot, port)| *slot = port);
        Self(slots)
    }

    /// Whether the port is one of them.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, port: u32) -> bool {
        port != 0 && self.0.iter().any(|slot| u32::from(*slot) == port)
    }
}

/// Value of `ADDRESSES`: whose address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PodAddress {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// What the kubelet may reach unjudged.
    pub probe_ports: ProbePorts,
}

/// Key of `ADMITTED`: one connection as the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// Address of whoever connects.
    pub remote: Address,
    /// Address that is connected to.
    pub local: Address,
    /// Port of whoever connects, host byte order.
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
    /// A family without an address is refused: nothing could capture it, and it must not leave in plaintext.
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
