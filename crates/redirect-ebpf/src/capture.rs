//! Redirects a pod's outbound connections to its proxy, for both families.

use ambit_redirect_common::{Address, Flow, Kind, LOOPBACK_INDEX, MARK, MARK_MASK, Outbound, outbound};

use crate::ctx::{Connect, admit, is_listening, is_proxy, pod, set_return};

const ALLOW: i32 = 1;
const DENY: i32 = 0;

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;
const ENETUNREACH: i32 = 101;
const ECONNREFUSED: i32 = 111;

/// Marks the socket if its connection is to be captured, so that the route lookup that follows ends
/// at `lo`.
///
/// The destination is unchanged, so the proxy can read it from the accepted socket.
#[inline(always)]
pub fn capture(connect: &Connect, destination: &Address) -> i32 {
    if connect.kind != SOCK_STREAM || !(connect.protocol == IPPROTO_TCP || connect.protocol == IPPROTO_MPTCP)
    {
        return ALLOW;
    }
    let cookie = connect.cookie();
    let Some(pod) = pod(cookie) else { return ALLOW };
    let decision = outbound(pod, destination);
    if matches!(decision, Outbound::Pass) {
        return ALLOW;
    }
    let is_proxy = is_proxy();
    if is_proxy && connect.device == LOOPBACK_INDEX {
        pass_on(connect, cookie, destination);
        return ALLOW;
    }
    // The socket of a connection to the pod itself is now bound to that address, which shows the
    // other end that it was not captured. This applies to a proxy too, which would otherwise become
    // its own client.
    if connect.is_local(destination) {
        return match unbind(connect) {
            Ok(()) => ALLOW,
            Err(()) => refuse(ECONNREFUSED),
        };
    }
    if is_proxy {
        return ALLOW;
    }
    match decision {
        Outbound::Pass => ALLOW,
        Outbound::Unreachable => refuse(ENETUNREACH),
        Outbound::Refuse => refuse(ECONNREFUSED),
        // Without this check a SYN without a listener would be lost and IPv4 would wait for a
        // timeout, because a reset from a foreign address finds no route back.
        Outbound::Capture if !is_listening(cookie, Kind::Outbound) => refuse(ECONNREFUSED),
        Outbound::Capture => match mark(connect) {
            Ok(()) => ALLOW,
            Err(()) => refuse(ECONNREFUSED),
        },
    }
}

/// A proxy forwards a client, with the client's source address, to an address of the pod that
/// `PODS` does not list.
#[inline(always)]
fn pass_on(connect: &Connect, cookie: u64, destination: &Address) {
    admit(&Flow {
        cookie,
        remote: connect.source,
        local: *destination,
        remote_port: connect.source_port,
        local_port: connect.port,
    });
}

#[inline(always)]
fn mark(connect: &Connect) -> Result<(), ()> {
    unbind(connect)?;
    let mark = connect.mark()?;
    connect.set_mark((mark & !MARK_MASK) | MARK)
}

/// A socket bound to the pod's device would not use a route over `lo`.
#[inline(always)]
fn unbind(connect: &Connect) -> Result<(), ()> {
    if connect.device == 0 { Ok(()) } else { connect.unbind_device() }
}

#[inline(always)]
fn refuse(errno: i32) -> i32 {
    set_return(errno);
    DENY
}
