//! Typed access to program contexts, maps and helpers; all `unsafe` of the programs.
//!
//! Every context field is read once, volatile and before any branch. LLVM otherwise merges loads of two branches
//! into one through a computed pointer, and the verifier refuses that ("dereference of modified ctx ptr").

use core::mem::size_of;
use core::ptr::{addr_of, read_volatile};

use ambit_redirect_common::{Address, Flow, Kind, ListenerKey, PodConfig, mapped};
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_getsockopt, bpf_ktime_get_ns, bpf_map_lookup_elem,
    bpf_set_retval, bpf_setsockopt, bpf_sk_release,
};
use aya_ebpf::programs::{SkLookupContext, SockAddrContext, SockOpsContext};

use crate::maps::{LISTENERS, NETNS, POD_IPS, PODS, PROBES, PROXIES};

const AF_INET: u32 = 2;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
const SO_BINDTOIFINDEX: i32 = 62;
const BPF_TCP_LISTEN: u32 = 10;

macro_rules! field {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the kernel hands every program a context that is valid while it runs; the field is plain data.
        unsafe { read_volatile(addr_of!((*$ctx).$($field)+)) }
    };
}

macro_rules! address {
    ($ctx:expr, $field:ident) => {
        [field!($ctx, $field[0]), field!($ctx, $field[1]), field!($ctx, $field[2]), field!($ctx, $field[3])]
    };
}

/// A task's `connect`.
pub struct Connect {
    ctx: *mut bpf_sock_addr,
    /// Socket type.
    pub kind: u32,
    /// IP protocol.
    pub protocol: u32,
    /// Device the socket is bound to, or 0.
    pub device: u32,
}

impl Connect {
    #[inline(always)]
    pub fn new(ctx: &SockAddrContext) -> Self {
        let ctx = ctx.sock_addr;
        let socket: *mut bpf_sock = field!(ctx, __bindgen_anon_1.sk);
        let device = if socket.is_null() { 0 } else { field!(socket, bound_dev_if) };
        Self { ctx, kind: field!(ctx, type_), protocol: field!(ctx, protocol), device }
    }

    /// Cookie of the socket's network namespace.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the context it was called with.
        unsafe { bpf_get_netns_cookie(self.ctx.cast()) }
    }

    #[inline(always)]
    pub fn ip4(&self) -> Address {
        mapped(field!(self.ctx, user_ip4))
    }

    #[inline(always)]
    pub fn ip6(&self) -> Address {
        address!(self.ctx, user_ip6)
    }

    #[inline(always)]
    pub fn mark(&self) -> Result<u32, ()> {
        let mut mark = 0;
        // SAFETY: `mark` is as long as the option and outlives the call.
        let result = unsafe {
            bpf_getsockopt(
                self.ctx.cast(),
                SOL_SOCKET,
                SO_MARK,
                (&raw mut mark).cast(),
                size_of::<u32>() as i32,
            )
        };
        if result == 0 { Ok(mark) } else { Err(()) }
    }

    #[inline(always)]
    pub fn set_mark(&self, mark: u32) -> Result<(), ()> {
        self.set_option(SO_MARK, mark)
    }

    /// Takes the socket off the device it is bound to.
    #[inline(always)]
    pub fn unbind_device(&self) -> Result<(), ()> {
        self.set_option(SO_BINDTOIFINDEX, 0)
    }

    #[inline(always)]
    fn set_option(&self, option: i32, mut value: u32) -> Result<(), ()> {
        // SAFETY: `value` is as long as the option and outlives the call.
        let result = unsafe {
            bpf_setsockopt(
                self.ctx.cast(),
                SOL_SOCKET,
                option,
                (&raw mut value).cast(),
                size_of::<u32>() as i32,
            )
        };
        if result == 0 { Ok(()) } else { Err(()) }
    }
}

/// Sets what the system call returns once the program refuses it.
#[inline(always)]
pub fn set_return(errno: i32) {
    // SAFETY: the helper takes a number.
    unsafe { bpf_set_retval(-errno) };
}

/// What is redirected in a network namespace.
#[inline(always)]
pub fn pod(cookie: u64) -> Option<&'static PodConfig> {
    // SAFETY: values are replaced, never changed in place: the map does not preallocate.
    unsafe { PODS.get(&cookie) }
}

/// Whether the running task is a proxy's.
#[inline(always)]
pub fn is_proxy() -> bool {
    // SAFETY: the helper takes nothing; the value is only tested for presence.
    unsafe { PROXIES.get(&bpf_get_current_cgroup_id()).is_some() }
}

/// Whether somebody listens.
///
/// A listener that was shut down stays in the map, so presence is not enough.
#[inline(always)]
pub fn is_listening(cookie: u64, kind: Kind) -> bool {
    let key = ListenerKey::new(cookie, kind);
    // SAFETY: the map is of this key type; the reference is released below on the only path.
    let socket = unsafe { bpf_map_lookup_elem(addr_of!(LISTENERS).cast_mut().cast(), addr_of!(key).cast()) };
    if socket.is_null() {
        return false;
    }
    let socket: *mut bpf_sock = socket.cast();
    let state = field!(socket, state);
    // SAFETY: the lookup above took the reference.
    unsafe { bpf_sk_release(socket.cast()) };
    state == BPF_TCP_LISTEN
}

/// The network namespace this instance of the program serves.
#[inline(always)]
pub fn served_netns() -> u64 {
    NETNS.get(0).copied().unwrap_or(0)
}

/// The lookup of a socket for a packet.
pub struct Lookup {
    pub protocol: u32,
    pub ingress_ifindex: u32,
    pub remote: Address,
    pub local: Address,
    /// Host byte order.
    pub remote_port: u32,
    /// Host byte order.
    pub local_port: u32,
}

impl Lookup {
    #[inline(always)]
    pub fn new(ctx: &SkLookupContext) -> Self {
        let ctx = ctx.lookup;
        let family = field!(ctx, family);
        let (remote4, local4) = (mapped(field!(ctx, remote_ip4)), mapped(field!(ctx, local_ip4)));
        let (remote6, local6) = (address!(ctx, remote_ip6), address!(ctx, local_ip6));
        let (remote, local) = if family == AF_INET { (remote4, local4) } else { (remote6, local6) };
        Self {
            protocol: field!(ctx, protocol),
            ingress_ifindex: field!(ctx, ingress_ifindex),
            remote,
            local,
            remote_port: u32::from(u16::from_be(field!(ctx, remote_port) as u16)),
            local_port: field!(ctx, local_port),
        }
    }
}

/// Hands the connection to a listener of ours.
#[inline(always)]
pub fn assign(ctx: &SkLookupContext, cookie: u64, kind: Kind) -> Result<(), ()> {
    /// The very socket of the map, whatever else shares its port.
    const BPF_SK_LOOKUP_F_NO_REUSEPORT: u64 = 2;
    let mut key = ListenerKey::new(cookie, kind);
    LISTENERS.redirect_sk_lookup(ctx, &mut key, BPF_SK_LOOKUP_F_NO_REUSEPORT).map_err(|_| ())
}

/// A connection about to be opened by a socket of a watched cgroup.
pub struct Opening {
    pub cookie: u64,
    pub remote: Address,
    pub local: Address,
    /// Host byte order.
    pub remote_port: u32,
    /// Host byte order.
    pub local_port: u32,
}

impl Opening {
    #[inline(always)]
    pub fn new(ctx: &SockOpsContext) -> Self {
        let ctx = ctx.ops;
        let family = field!(ctx, family);
        let (remote4, local4) = (mapped(field!(ctx, remote_ip4)), mapped(field!(ctx, local_ip4)));
        let (remote6, local6) = (address!(ctx, remote_ip6), address!(ctx, local_ip6));
        let (remote, local) = if family == AF_INET { (remote4, local4) } else { (remote6, local6) };
        Self {
            // SAFETY: the helper takes the context it was called with.
            cookie: unsafe { bpf_get_netns_cookie(ctx.cast()) },
            remote,
            local,
            remote_port: u32::from_be(field!(ctx, remote_port)),
            local_port: field!(ctx, local_port),
        }
    }
}

/// Whether the address is one of an enrolled pod of this node.
#[inline(always)]
pub fn is_pod(address: &Address) -> bool {
    // SAFETY: the value is only tested for presence.
    unsafe { POD_IPS.get(address).is_some() }
}

/// Nanoseconds since boot, without time asleep.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Remembers a probe.
#[inline(always)]
pub fn record_probe(flow: &Flow) {
    // A full map forgets its oldest entry, so the insertion cannot fail for want of room.
    let _ = PROBES.insert(flow, now(), 0);
}

/// When the probe was opened.
#[inline(always)]
pub fn probe_opened(flow: &Flow) -> Option<u64> {
    // SAFETY: a value torn by a concurrent write is an old or a new time of the same flow.
    unsafe { PROBES.get(flow) }.copied()
}
