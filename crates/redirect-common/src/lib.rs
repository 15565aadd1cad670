//! Map keys and values both sides of the kernel agree on, and the decisions taken over them.
//!
//! Every type is `repr(C)` without padding holes, because the kernel compares keys byte by byte. Addresses are
//! 128 bits as four words in network byte order, IPv4 in its v4-mapped form. The maps outlive the program that made
//! them: a map whose shape changes gets a new name (see [`map::RETIRED`]), and [`LAYOUT`] changes only with all of them.

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
    ADDRESSES_MAX, Flow, Kind, ListenerKey, PROBE_PORTS_MAX, PodAddress, PodConfig, ProbePorts,
    TooManyAddresses, flag, map,
};
pub use probe::{OPENING_BYTES_MAX, Opening, Probing, REST};

/// Version of the map layout; part of the pin path.
pub const LAYOUT: u32 = 1;

/// Mark that sends a packet of a pod through its own loopback device.
pub const MARK: u32 = 0x111;
/// Mark of every other connection that a proxy opens: it takes the ways of any packet, and should it come back to the
/// proxy's own listener (its destination is an address of the pod that nobody knew to be), the accepted socket has it
/// too. No rule of redirection selects it.
pub const PROXY_MARK: u32 = 0x113;
/// Bits of the mark that belong to us; the others stay as the application set them.
pub const MARK_MASK: u32 = 0xfff;
/// Routing table of a pod that holds the loopback default route.
pub const ROUTE_TABLE: u32 = 100;
/// Priority of the rule that selects [`ROUTE_TABLE`] by mark: before `main` (32766).
pub const RULE_PRIORITY: u32 = 32764;
/// Priority of the rule that does so for packets that are taken out of forwarding.
pub const FORWARD_RULE_PRIORITY: u32 = 32763;
/// Priority of the rule that sends what answers them, which has their mark, where it would go without one.
pub const ANSWER_RULE_PRIORITY: u32 = 32762;

/// Destination port that peers tunnel to.
pub const HBONE_PORT: u16 = 15008;
/// For how long an admitted flow that nobody used may still reach the application, in nanoseconds.
///
/// Long enough for a SYN that was lost to be sent again; short, so that a masqueraded connection does not come upon
/// the port of a probe that was never answered.
pub const ADMITTED_NANOSECONDS: u64 = 5_000_000_000;

// One mark for each purpose, told apart by our bits alone.
const _: () = assert!(MARK != FORWARD_MARK && MARK != PROXY_MARK && FORWARD_MARK != PROXY_MARK);
const _: () = assert!((MARK | FORWARD_MARK | PROXY_MARK) & !MARK_MASK == 0);
