//! Records the connections that the kubelet opens to enrolled pods, at the kubelet's cgroup.
//!
//! Only sockets of the host's own network namespace count: a kubelet in the root cgroup has every pod below it.

use ambit_redirect_common::Flow;
use aya_ebpf::bindings::BPF_SOCK_OPS_TCP_CONNECT_CB;
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;

use crate::ctx::{Opening, is_pod, record_probe, served_netns};

const GO_ON: u32 = 1;

/// Runs when the source port is known and the SYN not yet sent.
#[sock_ops]
pub fn probe(ctx: SockOpsContext) -> u32 {
    if ctx.op() != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return GO_ON;
    }
    let opening = Opening::new(&ctx);
    if opening.cookie == served_netns() && is_pod(&opening.remote) {
        // Seen from the pod, the kubelet's end is the remote one.
        record_probe(&Flow {
            remote: opening.local,
            local: opening.remote,
            remote_port: opening.local_port,
            local_port: opening.remote_port,
        });
    }
    GO_ON
}
