//! Packets that a pod forwards, at its devices: redirected to the proxy where possible, otherwise
//! dropped.
//!
//! Neither `connect` nor `sk_lookup` sees them: their sockets are in another network namespace, and
//! no socket lookup happens for forwarded packets.

use ambit_redirect_common::{Direction, FORWARD_MARK, Kind, MARK_MASK, flag, forwarded, is_name_query};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use crate::ctx::{pod, served_netns};
use crate::packet::{self, Packet};

/// Continue with the next program; without one, the packet passes.
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// At every device of the pod, for packets that leave by it.
#[classifier]
pub fn leaving(ctx: TcContext) -> i32 {
    let packet = Packet::new(ctx.skb.skb);
    // A packet of a socket of the pod itself has no ingress device.
    if packet.came_by == 0 {
        return NEXT;
    }
    let cookie = served_netns();
    let Some(pod) = pod(cookie) else { return NEXT };
    let (came_by_outer, leaves_by_outer) =
        (packet::is_outer(packet.came_by), packet::is_outer(packet.device));
    let Some(direction) = forwarded(pod, came_by_outer, leaves_by_outer) else { return NEXT };
    if let Some(header) = packet.header()
        && is_name_query(direction, header.protocol, header.source_port, header.port)
    {
        return NEXT;
    }
    packet::count(cookie, direction);
    DROP
}

/// At an inner device, for packets that arrive by it.
#[classifier]
pub fn arriving(ctx: TcContext) -> i32 {
    steer(ctx.skb.skb, packet::is_outer)
}

/// At a device that the pod's annotation `istio.io/reroute-virtual-interfaces` names.
#[classifier]
pub fn rerouted(ctx: TcContext) -> i32 {
    steer(ctx.skb.skb, |_| true)
}

/// Takes a TCP packet out of forwarding if it would leave by such a device. The mark makes it
/// delivered locally, and the first packet of a connection is assigned to the outbound listener.
/// The proxy reads the destination from the socket, as for connections that the pod opens itself.
#[inline(always)]
fn steer(skb: *mut __sk_buff, is_captured: impl Fn(u32) -> bool) -> i32 {
    let packet = Packet::new(skb);
    let cookie = served_netns();
    let Some(pod) = pod(cookie) else { return NEXT };
    let Some(header) = packet.header() else { return NEXT };
    let family = if packet.is_ip4() { flag::CAPTURE_V4 } else { flag::CAPTURE_V6 };
    if header.protocol != packet::TCP || pod.flags & family == 0 {
        return NEXT;
    }
    let Some(leaves_by) = packet.route(&header) else { return NEXT };
    if !is_captured(leaves_by) {
        return NEXT;
    }
    packet.set_mark((packet.mark & !MARK_MASK) | FORWARD_MARK);
    if header.opens && packet.assign(cookie, Kind::Outbound).is_err() {
        packet::count(cookie, Direction::Out);
        return DROP;
    }
    NEXT
}
