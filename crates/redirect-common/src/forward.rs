//! Forwarded packets: between the pod's own devices and those of containers or virtual machines
//! with a network of their own inside the pod.
//!
//! Invariant: with redirection on, no forwarded packet enters or leaves by a device of the pod.

use crate::layout::{PodConfig, flag};

/// Mark of a packet that is taken out of forwarding and delivered to the outbound listener.
///
/// Differs from [`MARK`](crate::MARK): replies must leave by the inner device, not by `lo`.
pub const FORWARD_MARK: u32 = 0x112;
/// Outer devices per pod.
pub const OUTER_MAX: usize = 4;

const UDP: u8 = 17;
const DNS_PORT: u16 = 53;

/// Direction of a dropped packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Direction {
    /// Out of the pod.
    Out = 0,
    /// Into the container or virtual machine inside the pod.
    In = 1,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Out, Self::In];
}

/// Key of `FORWARDED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Forwarded {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// A [`Direction`] as a number.
    pub direction: u32,
    /// Zero; avoids padding in the key.
    pub pad: u32,
}

impl Forwarded {
    /// The counter of one pod and direction.
    #[inline(always)]
    #[must_use]
    pub const fn new(cookie: u64, direction: Direction) -> Self {
        Self { cookie, direction: direction as u32, pad: 0 }
    }
}

/// Whether a forwarded packet must be dropped, and how it is counted.
///
/// A device is outer if it leads out of the pod. Packets between two inner devices are never
/// dropped.
#[inline(always)]
#[must_use]
pub const fn forwarded(pod: &PodConfig, came_by_outer: bool, leaves_by_outer: bool) -> Option<Direction> {
    if leaves_by_outer && pod.flags & flag::CAPTURE != 0 {
        Some(Direction::Out)
    } else if came_by_outer && !leaves_by_outer && pod.flags & flag::CAPTURE_INBOUND != 0 {
        Some(Direction::In)
    } else {
        None
    }
}

/// Whether a packet is a DNS query or its response. These pass, as the pod's own datagrams do:
/// otherwise clients inside could not resolve the names of what they connect to.
#[inline(always)]
#[must_use]
pub const fn is_name_query(direction: Direction, protocol: u8, source_port: u16, port: u16) -> bool {
    let server = match direction {
        Direction::Out => port,
        Direction::In => source_port,
    };
    protocol == UDP && server == DNS_PORT
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn what_is_forwarded_out_or_in_is_dropped_where_redirection_is_on() {
        let on = PodConfig::enrolled(&["10.1.0.5".parse().unwrap()]).unwrap();
        let bypassed = PodConfig { flags: on.flags & !flag::CAPTURE_INBOUND, ..on };
        let (out, into) = (Some(Direction::Out), Some(Direction::In));
        let table = [
            ("out", on, false, true, out),
            ("in", on, true, false, into),
            ("through", on, true, true, out),
            ("inside", on, false, false, None),
            ("out while leaving", on.only_hbone(), false, true, None),
            ("in while leaving", on.only_hbone(), true, false, None),
            ("in, inbound bypassed", bypassed, true, false, None),
            ("out, inbound bypassed", bypassed, false, true, out),
        ];
        for (name, pod, came, leaves, want) in table {
            assert_eq!(forwarded(&pod, came, leaves), want, "{name}");
        }
        assert_eq!(size_of::<Forwarded>(), 16);
    }

    #[test]
    fn only_name_queries_and_their_answers_pass() {
        let (tcp, udp) = (6, 17);
        let table = [
            (Direction::Out, udp, 40_000, 53, true),
            (Direction::Out, udp, 53, 40_000, false),
            (Direction::Out, tcp, 40_000, 53, false),
            (Direction::In, udp, 53, 40_000, true),
            (Direction::In, udp, 40_000, 53, false),
        ];
        for (direction, protocol, source, port, want) in table {
            assert_eq!(
                is_name_query(direction, protocol, source, port),
                want,
                "{direction:?} {source} {port}"
            );
        }
    }
}
