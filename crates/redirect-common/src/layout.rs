//! Keys and values of the maps.

use core::fmt;
use core::net::IpAddr;

use crate::address::{ANY, Address, mapped_ip4, words};

/// Destination port of HBONE tunnels.
pub const HBONE_PORT: u16 = 15008;
/// Addresses of each family that a pod may have.
pub const ADDRESSES_MAX: usize = 4;
/// Ports of a pod that the kubelet may probe; probes of further ports are subject to policy as
/// plaintext.
pub const PROBE_PORTS_MAX: usize = 32;

/// Map names: symbols in the object, and file names below the pin directory.
pub mod map {
    /// Hash: network namespace cookie to [`PodConfig`](crate::PodConfig). Writing this one value
    /// switches redirection.
    pub const PODS: &str = "PODS";
    /// Socket hash: [`ListenerKey`](crate::ListenerKey) to listening socket.
    pub const LISTENERS: &str = "LISTENERS";
    /// LRU hash: [`Flow`](crate::Flow) that may reach the application without authorization, to the
    /// boot time of its connect in nanoseconds. It is a probe of the kubelet, or a connection that
    /// a proxy forwards after authorizing it. Removed by its first packet.
    pub const ADMITTED: &str = "ADMITTED";
    /// LPM trie: [`Opening`](crate::Opening) that the kubelet may send on an admitted connection,
    /// to [`REST`](crate::REST) or 0.
    pub const OPENINGS: &str = "OPENINGS";
    /// Hash: cookie of a kubelet socket with an admitted connection, to its
    /// [`Probing`](crate::Probing).
    pub const PROBING: &str = "PROBING";
    /// Hash: address of an enrolled pod to its [`PodAddress`](crate::PodAddress).
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Hash: id of a cgroup whose tasks are exempt from capture, to 1.
    pub const PROXIES: &str = "PROXIES";
    /// Array of one: cookie of the network namespace that this instance of a program serves. Never
    /// pinned.
    pub const NETNS: &str = "NETNS";
    /// Array: indexes of the outer devices of the pod that this instance serves; 0 is an empty
    /// slot. Never pinned.
    pub const OUTER: &str = "OUTER";
    /// Hash: [`Forwarded`](crate::Forwarded) to the number of dropped packets.
    pub const FORWARDED: &str = "FORWARDED";
    /// Maps of earlier versions, whose pins are removed.
    pub const RETIRED: [&str; 2] = ["PROBES", "POD_IPS"];
}

/// Bits of [`PodConfig::flags`].
pub mod flag {
    /// Capture outbound IPv4 connections, v4-mapped or not.
    pub const CAPTURE_V4: u32 = 1;
    /// Capture outbound IPv6 connections.
    pub const CAPTURE_V6: u32 = 2;
    /// Capture outbound connections; those of a family whose bit is not set are refused.
    pub const CAPTURE: u32 = CAPTURE_V4 | CAPTURE_V6;
    /// Redirect inbound connections, except on the HBONE port, to the plaintext listener.
    pub const CAPTURE_INBOUND: u32 = 4;
    /// Redirect inbound connections on port 15008 to the HBONE listener.
    pub const HBONE: u32 = 8;
}

/// Kind of a proxy listener in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Kind {
    /// Connections that the pod opens.
    Outbound = 0,
    /// Inbound connections without a tunnel.
    InboundPlaintext = 1,
    /// Inbound tunnels.
    Hbone = 2,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::InboundPlaintext, Self::Hbone];

    /// The kind for the number in a map key.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::Outbound),
            1 => Some(Self::InboundPlaintext),
            2 => Some(Self::Hbone),
            _ => None,
        }
    }

    /// The port of `127.0.0.1` that a listener of this kind is bound to.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Outbound => 15001,
            Self::InboundPlaintext => 15006,
            Self::Hbone => HBONE_PORT,
        }
    }
}

/// Key of `LISTENERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerKey {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// A [`Kind`] as a number.
    pub kind: u32,
    /// Zero; avoids padding in the key.
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

/// Ports named by the pod's probes and lifecycle hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ProbePorts([u16; PROBE_PORTS_MAX]);

impl ProbePorts {
    /// Keeps the first [`PROBE_PORTS_MAX`] ports.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut slots = [0; PROBE_PORTS_MAX];
        slots.iter_mut().zip(ports).for_each(|(slot, port)| *slot = port);
        Self(slots)
    }

    /// Whether the port is in the set.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, port: u32) -> bool {
        port != 0 && self.0.iter().any(|slot| u32::from(*slot) == port)
    }
}

/// Value of `ADDRESSES`: the pod with this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PodAddress {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// Ports that the kubelet may connect to without authorization.
    pub probe_ports: ProbePorts,
}

/// Key of `ADMITTED`: one connection as the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// Address of the client.
    pub remote: Address,
    /// Destination address.
    pub local: Address,
    /// Port of the client, host byte order.
    pub remote_port: u32,
    /// Port of the pod, host byte order.
    pub local_port: u32,
}

/// Value of `PODS`: what is redirected in one network namespace, and the pod's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PodConfig {
    /// Bits of [`flag`].
    pub flags: u32,
    /// Own IPv4 addresses in network byte order; 0 is an empty slot.
    pub ip4: [u32; ADDRESSES_MAX],
    /// Own IPv6 addresses; [`ANY`] is an empty slot.
    pub ip6: [Address; ADDRESSES_MAX],
}

impl PodConfig {
    /// Redirects everything.
    ///
    /// Connections of a family in which the pod has no address are refused: they could not be
    /// captured and must not leave as plaintext.
    ///
    /// # Errors
    /// If one family has more than [`ADDRESSES_MAX`] addresses.
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

    /// Captures nothing, but still accepts tunnels from peers.
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

    /// The addresses, without empty slots.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        let ip4 = self.ip4.into_iter().filter(|ip| *ip != 0).map(crate::address::mapped);
        ip4.chain(self.ip6.into_iter().filter(|ip| *ip != ANY))
    }
}

// Written out, because `==` on arrays becomes a call to `memcmp`, which is not available in eBPF.
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
