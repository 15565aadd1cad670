//! `connect` of IPv4 sockets, attached at the root cgroup.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::capture::capture;
use crate::ctx::Connect;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let connect = Connect::new(&ctx);
    let destination = connect.ip4();
    capture(&connect, &destination)
}
