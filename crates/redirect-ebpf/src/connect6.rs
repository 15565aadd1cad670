//! `connect` of IPv6 sockets, to an IPv6 or a v4-mapped address, attached at the root cgroup.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::capture::capture;
use crate::ctx::Connect;

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let connect = Connect::new(&ctx);
    let destination = connect.ip6();
    capture(&connect, &destination)
}
