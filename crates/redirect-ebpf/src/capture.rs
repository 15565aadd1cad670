//! Sends a connection of a pod to its proxy, for both families.

use ambit_redirect_common::{Address, Kind, MARK, MARK_MASK, Outbound, outbound};

use crate::ctx::{Connect, is_listening, is_proxy, pod, set_return};

const ALLOW: i32 = 1;
const DENY: i32 = 0;

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;
const ECONNREFUSED: i32 = 111;

/// Marks the socket if its connection is to be captured: the route lookup that follows then ends at `lo`.
///
/// The destination is left as it is, so that the proxy reads it off the accepted socket.
#[inline(always)]
pub fn capture(connect: &Connect, destination: &Address) -> i32 {
    if connect.kind != SOCK_STREAM || !(connect.protocol == IPPROTO_TCP || connect.protocol == IPPROTO_MPTCP)
    {
        return ALLOW;
    }
    let cookie = connect.cookie();
    let Some(pod) = pod(cookie) else { return ALLOW };
    match outbound(pod, destination) {
        Outbound::Pass => ALLOW,
        Outbound::Refuse if is_proxy() => ALLOW,
        Outbound::Refuse => refuse(),
        Outbound::Capture if is_proxy() => ALLOW,
        // Without this check a SYN to nobody is lost, and IPv4 waits: a reset from a foreign address finds no way back.
        Outbound::Capture if !is_listening(cookie, Kind::Outbound) => refuse(),
        Outbound::Capture => match mark(connect) {
            Ok(()) => ALLOW,
            Err(()) => refuse(),
        },
    }
}

#[inline(always)]
fn mark(connect: &Connect) -> Result<(), ()> {
    // Bound to the pod's device, the socket would never see the route over `lo`.
    if connect.device != 0 {
        connect.unbind_device()?;
    }
    let mark = connect.mark()?;
    connect.set_mark((mark & !MARK_MASK) | MARK)
}

#[inline(always)]
fn refuse() -> i32 {
    set_return(ECONNREFUSED);
    DENY
}
