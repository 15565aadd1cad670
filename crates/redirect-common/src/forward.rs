//! Packets that a pod forwards: between its own devices and those of what runs inside it, a container or a virtual
//! machine behind a virtual device, with a network of its own.
//!
//! Invariant: what a pod forwards leaves by a device of the pod, or came in by one, only where redirection is off.

use crate::layout::{PodConfig, flag};

/// Mark of a packet that is taken out of forwarding and handed to the outbound listener.
///
/// Not [`MARK`](crate::MARK): what answers it must leave by the inner device, not by `lo`.
pub const FORWARD_MARK: u32 = 0x112;
/// Devices of a pod that lead out of it.
pub const OUTER_MAX: usize = 4;

const UDP: u8 = 17;
const DNS_PORT: u16 = 53;

/// Which way a packet that is dropped was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Direction {
    /// Out of the pod.
    Out = 0,
    /// Into what is inside.
    In = 1,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Out, Self::In];
}

/// Key of `FORWARDED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Forwarded {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// A [`Direction`].
    pub direction: u32,
    /// Zero; keeps the key free of holes.
    pub pad: u32,
}

impl Forwarded {
    /// The counter of one direction of one pod.
    #[inline(always)]
    #[must_use]
    pub const fn new(cookie: u64, direction: Direction) -> Self {
        Self { cookie, direction: direction as u32, pad: 0 }
    }
}

/// Whether a packet that came in by a device and is about to leave by another is dropped, and as what.
///
/// A device is outer if it leads out of the pod. Between inner ones the pod's network is its own business.
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

/// Whether a packet asks a name server, or is its answer. Passed as the pod's own datagrams are: what is inside could
/// not name what it is steered to otherwise.
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
