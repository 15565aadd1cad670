//! Map keys and values shared by user space and eBPF programs, and the decisions over them.
//!
//! Every type is `repr(C)` without padding, because the kernel compares keys byte by byte.
//! Addresses are 128 bits as four words in network byte order, IPv4 in v4-mapped form. The maps
//! outlive the program that created them: a map whose layout changes gets a new name (see
//! [`map::RETIRED`]), and [`LAYOUT`] changes only when all of them do.

#![no_std]

mod address;
mod decision;
mod forward;
mod layout;
mod probe;

pub use address::{ANY, Address, MAPPED_PREFIX, ip, is_loopback, mapped, mapped_ip4, words};
pub use decision::{Arrival, Inbound, LOOPBACK_INDEX, Outbound, inbound, outbound};
pub use forward::{Direction, FORWARD_MARK, Forwarded, OUTER_MAX, forwarded, is_name_query};
pub use layout::{
    ADDRESSES_MAX, Flow, HBONE_PORT, Kind, ListenerKey, PROBE_PORTS_MAX, PodAddress, PodConfig, ProbePorts,
    TooManyAddresses, flag, map,
};
pub use probe::{OPENING_BYTES_MAX, Opening, Probing, REST};

/// Version of the map layout; part of the pin path.
pub const LAYOUT: u32 = 1;

/// Mark of packets that are routed through the pod's own loopback device.
pub const MARK: u32 = 0x111;
/// Mark of every other connection that a proxy opens. No redirection rule matches it, so it is
/// routed normally. If it arrives at the proxy's own listener, because its destination is an
/// unlisted address of the pod, the accepted socket carries the mark too.
pub const PROXY_MARK: u32 = 0x113;
/// The bits of a mark that belong to us; the application's other bits are kept.
pub const MARK_MASK: u32 = 0xfff;
/// Routing table of a pod with the default route to loopback.
pub const ROUTE_TABLE: u32 = 100;
/// Priority of the rule that selects [`ROUTE_TABLE`] by [`MARK`]: before `main` (32766).
pub const RULE_PRIORITY: u32 = 32764;
/// Priority of the rule that selects it by [`FORWARD_MARK`](crate::FORWARD_MARK).
pub const FORWARD_RULE_PRIORITY: u32 = 32763;
/// Priority of the rule that routes replies with that mark normally.
pub const ANSWER_RULE_PRIORITY: u32 = 32762;

/// How long an admitted flow stays admitted without being used, in nanoseconds.
///
/// Long enough for a lost SYN to be retransmitted. Short, so that a masqueraded connection does not
/// reuse the source port of an unanswered probe.
pub const ADMITTED_NANOSECONDS: u64 = 5_000_000_000;

// Marks are compared by our bits only, so they must differ there.
const _: () = assert!(MARK != FORWARD_MARK && MARK != PROXY_MARK && FORWARD_MARK != PROXY_MARK);
const _: () = assert!((MARK | FORWARD_MARK | PROXY_MARK) & !MARK_MASK == 0);
