//! Socket lookup for a new connection in the network namespace of one pod.
//!
//! Established connections skip this program. The pod's entry in `PODS` is read each time, so that
//! one write switches redirection while the program stays attached.

use ambit_redirect_common::{Arrival, Flow, Inbound, inbound};
use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;

use crate::ctx::{Lookup, assign, pod, served_netns, use_admission};

const IPPROTO_TCP: u32 = 6;

#[sk_lookup]
pub fn inpod(ctx: SkLookupContext) -> u32 {
    let lookup = Lookup::new(&ctx);
    if lookup.protocol != IPPROTO_TCP {
        return SK_PASS;
    }
    let cookie = served_netns();
    let Some(pod) = pod(cookie) else { return SK_PASS };
    let arrival = Arrival {
        ingress_ifindex: lookup.ingress_ifindex,
        remote: lookup.remote,
        local: lookup.local,
        local_port: lookup.local_port,
    };
    let kind = match inbound(pod, &arrival) {
        Inbound::Pass => return SK_PASS,
        Inbound::Steer(kind) => kind,
        Inbound::Judge(_) if is_admitted(&lookup, cookie) => return SK_PASS,
        Inbound::Judge(kind) => kind,
    };
    // Dropping answers a SYN with a reset: fail closed, at once.
    match assign(&ctx, cookie, kind) {
        Ok(()) => SK_PASS,
        Err(()) => SK_DROP,
    }
}

/// Only the first packet of a connection gets here: a retransmission meets the socket of the first.
#[inline(always)]
fn is_admitted(lookup: &Lookup, cookie: u64) -> bool {
    use_admission(&Flow {
        cookie,
        remote: lookup.remote,
        local: lookup.local,
        remote_port: lookup.remote_port,
        local_port: lookup.local_port,
    })
}
