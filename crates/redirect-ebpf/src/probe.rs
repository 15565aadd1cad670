//! Admits the connections that the kubelet opens to the probe ports of enrolled pods, at the kubelet's cgroup.
//!
//! Only sockets of the host's own network namespace count. A port that no probe of the pod names is not admitted: a
//! probe of another pod may name any address as its host.

use ambit_redirect_common::Flow;
use aya_ebpf::bindings::BPF_SOCK_OPS_TCP_CONNECT_CB;
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;

use crate::ctx::{Opening, admit, pod_of, served_netns};

const GO_ON: u32 = 1;

/// Runs when the source port is known and the SYN not yet sent.
#[sock_ops]
pub fn probe(ctx: SockOpsContext) -> u32 {
    if ctx.op() != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return GO_ON;
    }
    let opening = Opening::new(&ctx);
    if opening.cookie != served_netns() {
        return GO_ON;
    }
    let Some(pod) = pod_of(&opening.remote) else { return GO_ON };
    if pod.probe_ports.contains(opening.remote_port) {
        // Seen from the pod, the kubelet's end is the remote one.
        admit(&Flow {
            cookie: pod.cookie,
            remote: opening.local,
            local: opening.remote,
            remote_port: opening.local_port,
            local_port: opening.remote_port,
        });
    }
    GO_ON
}
