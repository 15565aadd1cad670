//! Typed access to program contexts, maps and helpers; contains all `unsafe` code of the programs.
//!
//! Every context field is read once, as volatile and before any branch. LLVM otherwise merges loads
//! of two branches into one through a computed pointer, which the verifier rejects ("dereference of
//! modified ctx ptr").

use core::mem::{MaybeUninit, size_of};
use core::ptr::{addr_of, write_volatile};

use ambit_redirect_common::{
    ADMITTED_NANOSECONDS, ANY, Address, Flow, Kind, ListenerKey, PodAddress, PodConfig, Probing, mapped,
    mapped_ip4,
};
use aya_ebpf::bindings::{__sk_buff, bpf_sock, bpf_sock_addr, sockaddr};
use aya_ebpf::helpers::generated::{
    bpf_bind, bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_getsockopt,
    bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_set_retval, bpf_setsockopt, bpf_sk_release,
};
use aya_ebpf::programs::{SkLookupContext, SockAddrContext, SockOpsContext};

use crate::maps::{ADDRESSES, ADMITTED, LISTENERS, NETNS, PODS, PROBING, PROXIES};

const AF_INET: u32 = 2;
/// An address that no host has: reserved for future use (RFC 1112, 4), or the discard prefix (RFC
/// 6666).
const NOBODY4: Address = mapped(0xf000_0001_u32.to_be());
const NOBODY6: Address = [0x0100_0000_u32.to_be(), 0, 0, 1_u32.to_be()];
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
const SO_BINDTOIFINDEX: i32 = 62;
const BPF_TCP_LISTEN: u32 = 10;

macro_rules! field {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the kernel passes every program a context that is valid while it runs; the field
        // is plain data.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!((*$ctx).$($field)+)) }
    };
}

pub(crate) use field;

macro_rules! address {
    ($ctx:expr, $field:ident) => {
        [field!($ctx, $field[0]), field!($ctx, $field[1]), field!($ctx, $field[2]), field!($ctx, $field[3])]
    };
}

/// A `connect` call of a task.
pub struct Connect {
    ctx: *mut bpf_sock_addr,
    /// Socket type.
    pub kind: u32,
    /// IP protocol.
    pub protocol: u32,
    /// Device that the socket is bound to, or 0.
    pub device: u32,
    /// Address that the socket is bound to, or [`ANY`].
    pub source: Address,
    /// Port that the socket is bound to, or 0; host byte order.
    pub source_port: u32,
    /// Destination port, host byte order.
    pub port: u32,
    family: u32,
}

impl Connect {
    #[inline(always)]
    pub fn new(ctx: &SockAddrContext) -> Self {
        let ctx = ctx.sock_addr;
        let socket: *mut bpf_sock = field!(ctx, __bindgen_anon_1.sk);
        let (kind, protocol, family) = (field!(ctx, type_), field!(ctx, protocol), field!(ctx, family));
        let port = u32::from(u16::from_be(field!(ctx, user_port) as u16));
        let mut connect = Self { ctx, kind, protocol, family, port, device: 0, source: ANY, source_port: 0 };
        if !socket.is_null() {
            connect.device = field!(socket, bound_dev_if);
            connect.source_port = field!(socket, src_port);
            let (ip4, ip6) = (field!(socket, src_ip4), address!(socket, src_ip6));
            connect.source = match (family, ip4) {
                (AF_INET, 0) => ANY,
                (AF_INET, ip4) => mapped(ip4),
                _ => ip6,
            };
        }
        connect
    }

    /// Whether the destination is a local address of the network namespace. If so, the socket is
    /// then bound to it, as the kernel would have done itself.
    ///
    /// The test is whether `bind` succeeds, because only local addresses can be bound. Two kinds of
    /// sockets give no answer: those with options such as IP_FREEBIND, which may bind any address,
    /// and those that the application has bound.
    #[inline(always)]
    pub fn is_local(&self, destination: &Address) -> bool {
        let [a, b, c, d] = self.source;
        if a | b | c | d | self.source_port != 0 || self.bind(destination).is_err() {
            return false;
        }
        let nobody = if mapped_ip4(destination).is_some() { &NOBODY4 } else { &NOBODY6 };
        if self.bind(nobody).is_err() {
            return true;
        }
        let _ = self.bind(&ANY);
        false
    }

    #[inline(always)]
    fn bind(&self, address: &Address) -> Result<(), ()> {
        let [a, b, c, d] = *address;
        // The words of a `sockaddr_in6` or `sockaddr_in`; the port after the family is 0.
        let (words, length) = if self.family == AF_INET {
            ([self.family, d, 0, 0, 0, 0, 0], 16)
        } else {
            ([self.family, 0, a, b, c, d, 0], 28)
        };
        let mut to = MaybeUninit::<[u32; 7]>::uninit();
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: within the array. Volatile, or it becomes a call to `memset`, which is not
            // available in eBPF.
            unsafe { write_volatile(to.as_mut_ptr().cast::<u32>().add(index), word) };
        }
        // SAFETY: the helper takes its own context and reads `length` bytes of an address that
        // outlives the call.
        let result = unsafe { bpf_bind(self.ctx, to.as_mut_ptr().cast::<sockaddr>(), length) };
        if result == 0 { Ok(()) } else { Err(()) }
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

    /// Removes the socket's binding to a device.
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

/// Sets the error that the system call returns when the program rejects it.
#[inline(always)]
pub fn set_return(errno: i32) {
    // SAFETY: the helper takes a number.
    unsafe { bpf_set_retval(-errno) };
}

/// The redirection config of a network namespace.
#[inline(always)]
pub fn pod(cookie: u64) -> Option<&'static PodConfig> {
    // SAFETY: values are replaced, never changed in place, because the map does not preallocate.
    unsafe { PODS.get(&cookie) }
}

/// Whether the running task belongs to a proxy.
#[inline(always)]
pub fn is_proxy() -> bool {
    // SAFETY: the helper takes no argument; the value is only tested for presence.
    unsafe { PROXIES.get(&bpf_get_current_cgroup_id()).is_some() }
}

/// Whether the listener is listening.
///
/// A listener that was shut down stays in the map, so presence is not enough.
#[inline(always)]
pub fn is_listening(cookie: u64, kind: Kind) -> bool {
    let key = ListenerKey::new(cookie, kind);
    // SAFETY: the map has this key type; the reference is released below on the only path.
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

/// Cookie of the network namespace that this instance of the program serves.
#[inline(always)]
pub fn served_netns() -> u64 {
    NETNS.get(0).copied().unwrap_or(0)
}

/// A socket lookup for a packet.
pub struct Lookup {
    pub protocol: u32,
    pub ingress_ifindex: u32,
    pub remote: Address,
    pub local: Address,
    /// Port of the client, host byte order.
    pub remote_port: u32,
    /// Destination port, host byte order.
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

/// Assigns the connection to a proxy listener.
#[inline(always)]
pub fn assign(ctx: &SkLookupContext, cookie: u64, kind: Kind) -> Result<(), ()> {
    /// Selects exactly the socket of the map, even if others share its port.
    const BPF_SK_LOOKUP_F_NO_REUSEPORT: u64 = 2;
    let mut key = ListenerKey::new(cookie, kind);
    LISTENERS.redirect_sk_lookup(ctx, &mut key, BPF_SK_LOOKUP_F_NO_REUSEPORT).map_err(|_| ())
}

/// A connection that a socket in a watched cgroup is about to open.
pub struct Opening {
    pub cookie: u64,
    pub remote: Address,
    pub local: Address,
    /// Destination port, host byte order.
    pub remote_port: u32,
    /// Source port, host byte order.
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

/// The enrolled pod of this node with this address.
#[inline(always)]
pub fn pod_of(address: &Address) -> Option<&'static PodAddress> {
    // SAFETY: values are replaced, never changed in place, because the map does not preallocate.
    unsafe { ADDRESSES.get(address) }
}

/// Starts to check what the socket of a connection sends.
#[inline(always)]
pub fn watch_probe(ctx: &SockOpsContext, probing: &Probing) -> Result<(), ()> {
    // SAFETY: the helper takes the context it was called with.
    let socket = unsafe { bpf_get_socket_cookie(ctx.ops.cast()) };
    PROBING.insert(&socket, probing, 0).map_err(|_| ())
}

/// Stops checking a socket whose connection has ended.
#[inline(always)]
pub fn forget_probe(ctx: &SockOpsContext) {
    // SAFETY: the helper takes the context it was called with.
    let socket = unsafe { bpf_get_socket_cookie(ctx.ops.cast()) };
    let _ = PROBING.remove(&socket);
}

/// The check state of the socket that sends a packet.
#[inline(always)]
pub fn probing(skb: *mut __sk_buff) -> Option<&'static mut Probing> {
    // SAFETY: the helper takes the context it was called with.
    let socket = unsafe { bpf_get_socket_cookie(skb.cast()) };
    // SAFETY: packets of one connection are sent one after another, under the lock of its socket.
    PROBING.get_ptr_mut(&socket).map(|probing| unsafe { &mut *probing })
}

/// Nanoseconds since boot, without time in suspend.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// Admits a flow to the application.
#[inline(always)]
pub fn admit(flow: &Flow) {
    // A full LRU map evicts its oldest entry, so the insertion cannot fail for lack of space.
    let _ = ADMITTED.insert(flow, now(), 0);
}

/// Removes the admission of a flow. Returns whether there was a valid one.
#[inline(always)]
pub fn use_admission(flow: &Flow) -> bool {
    // SAFETY: a value torn by a concurrent write is an old or a new time of the same flow.
    let Some(admitted) = unsafe { ADMITTED.get(flow) }.copied() else { return false };
    // If two programs find it, only one removes it.
    ADMITTED.remove(flow).is_ok() && now().wrapping_sub(admitted) < ADMITTED_NANOSECONDS
}
