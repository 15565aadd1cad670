//! The decisions of the eBPF programs, as plain functions over plain data.
//!
//! Inlined into the programs, and unit-tested here without a kernel.

use crate::address::{Address, is_link_local6, is_loopback, mapped_ip4};
use crate::layout::{Kind, PodConfig, flag, same};
use crate::{HBONE_PORT, address::ANY};

/// Index of the loopback device in every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// What happens to a connection that a task of the pod opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// It is not redirected.
    Pass,
    /// It is redirected to the outbound listener.
    Capture,
    /// It is refused: it cannot be captured and must not leave as plaintext.
    Refuse,
    /// It is refused as if there were no route: the pod has no address of the family.
    Unreachable,
}

/// Decides about a `connect` to `destination` from within the pod, by a task that is not a proxy.
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
        // The scope id binds the socket to a device after the hook, so the capturing route would
        // not apply.
        Outbound::Refuse
    } else {
        Outbound::Capture
    }
}

/// The first packet of an inbound connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Index of the device it arrived on.
    pub ingress_ifindex: u32,
    /// Source address.
    pub remote: Address,
    /// Destination address.
    pub local: Address,
    /// Destination port, host byte order.
    pub local_port: u32,
}

/// What happens to an inbound connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Normal socket lookup.
    Pass,
    /// It goes to the listener of this kind, and is reset if there is none.
    Steer(Kind),
    /// It passes if its flow was admitted; otherwise it goes to the listener of this kind.
    Judge(Kind),
}

/// Decides about an inbound connection.
#[inline(always)]
#[must_use]
pub const fn inbound(pod: &PodConfig, arrival: &Arrival) -> Inbound {
    if arrival.ingress_ifindex == LOOPBACK_INDEX {
        // When a pod dials one of its addresses that `PODS` does not list, that address is the
        // source too.
        if is_loopback(&arrival.local) || pod.owns(&arrival.local) || same(&arrival.remote, &arrival.local) {
            return Inbound::Pass;
        }
        // A foreign destination on `lo` was marked by the connect hook, whatever the flags are by
        // now; or a proxy forwards a client to such an address.
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
    // When a pod dials its own address, the packet carries the index of the device that owns the
    // address.
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
