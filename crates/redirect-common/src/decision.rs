//! What the kernel programs decide, as plain functions over plain data.
//!
//! Inlined into the programs, and tested here, where a test needs no kernel.

use crate::address::{Address, is_link_local6, is_loopback, mapped_ip4};
use crate::layout::{Kind, PodConfig, flag, same};
use crate::{HBONE_PORT, address::ANY};

/// Index of the loopback device, in every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// What happens to a connection that a task of the pod opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Goes its way.
    Pass,
    /// Goes to the outbound listener.
    Capture,
    /// Is refused: it cannot be captured, and must not leave in plaintext.
    Refuse,
    /// Is refused as if there were no route: the pod has no address of the family.
    Unreachable,
}

/// Decides over a connect to `destination` from within the pod, by a task that is not a proxy.
#[inline(always)]
#[must_use]
pub const fn outbound(pod: &PodConfig, destination: &Address) -> Outbound {
    let ip4 = mapped_ip4(destination);
    let family = if ip4.is_some() { flag::CAPTURE_V4 } else { flag::CAPTURE_V6 };
    let unspecified = matches!(ip4, Some(0)) || same(destination, &ANY);
    if pod.flags & flag::CAPTURE == 0 || unspecified || is_loopback(destination) || pod.owns(destination) {
        Outbound::Pass
    } else if pod.flags & family == 0 {
        Outbound::Unreachable
    } else if ip4.is_none() && is_link_local6(destination) {
        // The scope id ties the socket to a device after the hook, past the route that captures.
        Outbound::Refuse
    } else {
        Outbound::Capture
    }
}

/// The first packet of a connection that reached the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Index of the device it came in on.
    pub ingress_ifindex: u32,
    /// Source address.
    pub remote: Address,
    /// Destination address.
    pub local: Address,
    /// Destination port, host byte order.
    pub local_port: u32,
}

/// What happens to a connection that reached the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// The kernel looks for a socket as if we were not there.
    Pass,
    /// Goes to the listener of this kind, and is reset without one.
    Steer(Kind),
    /// Passes if its flow was admitted, and goes to the listener of this kind otherwise.
    Judge(Kind),
}

/// Decides over a connection that reached the pod.
#[inline(always)]
#[must_use]
pub const fn inbound(pod: &PodConfig, arrival: &Arrival) -> Inbound {
    if arrival.ingress_ifindex == LOOPBACK_INDEX {
        // A pod that dials an address of its own that `PODS` does not list has that address as its source, too.
        if is_loopback(&arrival.local) || pod.owns(&arrival.local) || same(&arrival.remote, &arrival.local) {
            return Inbound::Pass;
        }
        // A foreign destination on `lo` was marked by the connect hook, whatever the flags say by now; or it is a
        // proxy that passes a client on to such an address.
        if pod.owns(&arrival.remote) {
            return Inbound::Steer(Kind::Outbound);
        }
        return Inbound::Judge(Kind::Outbound);
    }
    if is_loopback(&arrival.remote) {
        return Inbound::Pass;
    }
    if arrival.local_port == HBONE_PORT as u32 && pod.flags & flag::HBONE != 0 {
        return Inbound::Steer(Kind::Hbone);
    }
    // A pod that dials its own address: the packet carries the index of the device that owns the address.
    if pod.flags & flag::CAPTURE_INBOUND == 0
        || pod.owns(&arrival.remote)
        || same(&arrival.remote, &arrival.local)
    {
        return Inbound::Pass;
    }
    Inbound::Judge(Kind::InboundPlaintext)
}

#[cfg(test)]
mod tests;
