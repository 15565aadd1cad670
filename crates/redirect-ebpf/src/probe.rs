//! Probe connections from the kubelet's cgroup to enrolled pods: admits them, and drops data that
//! no probe of the pod itself would send.
//!
//! Only sockets of the host's own network namespace count. A probe of another pod may use any
//! address as its host; therefore a port that no probe of this pod names is not admitted, and data
//! that starts like none of its probes is dropped.

use ambit_redirect_common::{Flow, Probing, flag};
use aya_ebpf::bindings::{BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB};
use aya_ebpf::macros::{cgroup_skb, sock_ops};
use aya_ebpf::programs::{SkBuffContext, SockOpsContext};

use crate::ctx::{Opening, admit, forget_probe, pod, pod_of, probing, served_netns, watch_probe};
use crate::packet::Packet;

const GO_ON: u32 = 1;
const PASS: i32 = 1;
const DROP: i32 = 0;
const TCP_CLOSE: u32 = 7;

/// Runs when the source port is known and the SYN not yet sent, and at each state change of a
/// watched connection.
#[sock_ops]
pub fn probe(ctx: SockOpsContext) -> u32 {
    let (op, state) = (ctx.op(), ctx.arg(1));
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        open(&ctx);
    } else if op == BPF_SOCK_OPS_STATE_CB && state == TCP_CLOSE {
        forget_probe(&ctx);
    }
    GO_ON
}

#[inline(always)]
fn open(ctx: &SockOpsContext) {
    let opening = Opening::new(ctx);
    if opening.cookie != served_netns() {
        return;
    }
    let Some(pod) = pod_of(&opening.remote) else { return };
    if !pod.probe_ports.contains(opening.remote_port) {
        return;
    }
    // A connection that cannot be watched is not admitted, so policy applies to it as plaintext.
    if ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32).is_err()
        || watch_probe(ctx, &Probing::new(pod.cookie, opening.remote_port)).is_err()
    {
        return;
    }
    // From the pod's point of view the kubelet is remote.
    admit(&Flow {
        cookie: pod.cookie,
        remote: opening.local,
        local: opening.remote,
        remote_port: opening.local_port,
        local_port: opening.remote_port,
    });
}

/// Runs for packets that the kubelet sends.
#[cgroup_skb(egress)]
pub fn probe_sends(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let packet = Packet::new(skb);
    let Some(probing) = probing(skb) else { return PASS };
    // Where plaintext is not captured, the kubelet needs no check.
    if !pod(probing.cookie).is_some_and(|pod| pod.flags & flag::CAPTURE_INBOUND != 0) {
        return PASS;
    }
    let Some(segment) = packet.segment() else { return DROP };
    if probing.is_judged(segment.sequence, segment.length) {
        return PASS;
    }
    let Some(rest) = packet.opening(&segment, probing) else { return DROP };
    *probing = probing.after(segment.sequence, segment.length, rest);
    PASS
}
