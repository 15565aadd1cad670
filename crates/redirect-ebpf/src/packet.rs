//! A packet at a device: parsing, routing, and assignment to a listener.

use core::mem::MaybeUninit;
use core::ptr::{addr_of, write_volatile};

use ambit_redirect_common::{
    Address, Direction, Forwarded, Kind, ListenerKey, OPENING_BYTES_MAX, OUTER_MAX, Opening, Probing,
};
use aya_ebpf::bindings::{__sk_buff, bpf_fib_lookup as FibLookup};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release, bpf_skb_load_bytes,
    bpf_skb_load_bytes_relative,
};

use crate::ctx::field;
use crate::maps::{FORWARDED, LISTENERS, OPENINGS, OUTER};

/// IP protocol number.
pub const TCP: u8 = 6;
const UDP: u8 = 17;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const FROM_NETWORK_HEADER: u32 = 1;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// The offset bits (lower 13) of the IPv4 fragment field.
const FRAGMENT_OFFSET: u16 = 0x1fff;

pub struct Packet {
    skb: *mut __sk_buff,
    /// Ingress device, or 0.
    pub came_by: u32,
    /// The device that the program is attached to.
    pub device: u32,
    pub mark: u32,
    ethertype: u16,
    length: u32,
}

/// The payload of a TCP packet.
pub struct Segment {
    pub sequence: u32,
    /// Length of the payload in bytes.
    pub length: u32,
    /// Length of the headers before it in bytes.
    offset: u32,
}

/// The parsed header fields. Ports are not read from later fragments or behind IPv6 extension
/// headers.
pub struct Header {
    pub protocol: u8,
    source: Address,
    destination: Address,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub port: u16,
    /// A SYN without ACK.
    pub opens: bool,
}

impl Packet {
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self {
            skb,
            came_by: field!(skb, ingress_ifindex),
            device: field!(skb, ifindex),
            mark: field!(skb, mark),
            ethertype: u16::from_be(field!(skb, protocol) as u16),
            length: field!(skb, len),
        }
    }

    #[inline(always)]
    pub fn is_ip4(&self) -> bool {
        self.ethertype == ETH_P_IP
    }

    #[inline(always)]
    fn load<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let length = size_of::<T>() as u32;
        // SAFETY: the helper writes `length` bytes to a value of that size, or reports failure.
        let result = unsafe {
            bpf_skb_load_bytes_relative(
                self.skb.cast(),
                offset,
                value.as_mut_ptr().cast(),
                length,
                FROM_NETWORK_HEADER,
            )
        };
        // SAFETY: written above; every `T` used here consists of integers, for which every bit
        // pattern is valid.
        (result == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    pub fn header(&self) -> Option<Header> {
        let (protocol, source, destination, offset) = match self.ethertype {
            ETH_P_IP => {
                let first: u8 = self.load(0)?;
                let fragment = u16::from_be(self.load(6)?);
                if fragment & FRAGMENT_OFFSET != 0 {
                    return None;
                }
                // The layout that `route` needs: the address in the first word.
                let one = |ip4: u32| [ip4, 0, 0, 0];
                (self.load(9)?, one(self.load(12)?), one(self.load(16)?), u32::from(first & 0x0f) * 4)
            }
            ETH_P_IPV6 => (self.load(6)?, self.load(8)?, self.load(24)?, 40),
            _ => return None,
        };
        let mut header = Header { protocol, source, destination, source_port: 0, port: 0, opens: false };
        if protocol == TCP || protocol == UDP {
            header.source_port = u16::from_be(self.load(offset)?);
            header.port = u16::from_be(self.load(offset + 2)?);
        }
        if protocol == TCP {
            let flags: u8 = self.load(offset + 13)?;
            header.opens = flags & (SYN | ACK) == SYN;
        }
        Some(header)
    }

    /// The payload of a packet that a TCP socket sends, at a hook where the packet starts with its
    /// network header.
    #[inline(always)]
    pub fn segment(&self) -> Option<Segment> {
        let (protocol, start): (u8, u32) = match self.ethertype {
            ETH_P_IP => {
                let first: u8 = self.load(0)?;
                (self.load(9)?, u32::from(first & 0x0f) * 4)
            }
            ETH_P_IPV6 => (self.load(6)?, 40),
            _ => return None,
        };
        if protocol != TCP {
            return None;
        }
        let sequence = u32::from_be(self.load(start + 4)?);
        let header: u8 = self.load(start + 12)?;
        let offset = start + u32::from(header >> 4) * 4;
        Some(Segment { sequence, length: self.length.checked_sub(offset)?, offset })
    }

    /// Whether the payload starts like one of the pod's own probes. Returns the map value, which
    /// says whether the rest passes.
    #[inline(always)]
    pub fn opening(&self, segment: &Segment, probing: &Probing) -> Option<u32> {
        const WORDS: usize = size_of::<Opening>() / 4 + 1;
        const BYTES_AT: usize = WORDS - OPENING_BYTES_MAX / 4;
        let length = segment.length;
        // SAFETY: it is a local variable. Volatile, so that the verifier sees the bounds check that
        // the compiler would remove.
        let length = unsafe { addr_of!(length).read_volatile() };
        if length == 0 {
            return None;
        }
        let length = length.min(OPENING_BYTES_MAX as u32);
        let [low, high] = Opening::halves(probing.cookie);
        let mut key = MaybeUninit::<[u32; WORDS]>::uninit();
        let start: *mut u32 = key.as_mut_ptr().cast();
        for (index, word) in [Opening::bits(length), low, high, probing.port].into_iter().enumerate() {
            // SAFETY: within the array. Volatile, as in `route`.
            unsafe { write_volatile(start.add(index), word) };
        }
        for index in BYTES_AT..WORDS {
            // SAFETY: within the array. Volatile, as in `route`.
            unsafe { write_volatile(start.add(index), 0) };
        }
        let bytes = start.wrapping_add(BYTES_AT);
        // Not relative to a header, because that reads no further than the kernel's linear header
        // area. SAFETY: the helper writes `length` bytes after the words above, which is within the
        // array.
        let result = unsafe { bpf_skb_load_bytes(self.skb.cast(), segment.offset, bytes.cast(), length) };
        if result != 0 {
            return None;
        }
        // SAFETY: the map has this key type, and its values are never changed in place.
        let rest: *mut u32 =
            unsafe { bpf_map_lookup_elem(addr_of!(OPENINGS).cast_mut().cast(), start.cast()) }.cast();
        // SAFETY: a map value outlives the run of the program.
        (!rest.is_null()).then(|| unsafe { *rest })
    }

    /// The device that the packet would leave by; `None` if it is delivered locally or has no
    /// route.
    #[inline(always)]
    pub fn route(&self, header: &Header) -> Option<u32> {
        const WORDS: usize = size_of::<FibLookup>() / 4;
        const FORWARDED_TO: i64 = 0;
        const NO_NEIGHBOUR: i64 = 7;
        const TOO_LONG: i64 = 8;
        let family = if self.is_ip4() { AF_INET } else { AF_INET6 };
        let [a, b, c, d] = header.source;
        let [e, f, g, h] = header.destination;
        let source_port = u32::from(header.source_port.to_be()) << 16;
        // `struct bpf_fib_lookup` in words: family, protocol and source port; port and length;
        // device; traffic class; addresses; the rest is output.
        let words: [u32; WORDS] = [
            family | (u32::from(header.protocol) << 8) | source_port,
            u32::from(header.port.to_be()),
            self.device,
            0,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            0,
            0,
            0,
            0,
        ];
        let mut lookup = MaybeUninit::<[u32; WORDS]>::uninit();
        let start: *mut u32 = lookup.as_mut_ptr().cast();
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: within the array. Volatile, or it becomes a call to `memset`, which is not
            // available in eBPF.
            unsafe { write_volatile(start.add(index), word) };
        }
        // SAFETY: the helper reads and writes the whole value, which outlives the call.
        let result =
            unsafe { bpf_fib_lookup(self.skb.cast(), start.cast(), size_of::<FibLookup>() as i32, 0) };
        // SAFETY: initialised above.
        let leaves_by = unsafe { start.add(2).read_volatile() };
        matches!(result, FORWARDED_TO | NO_NEIGHBOUR | TOO_LONG).then_some(leaves_by)
    }

    #[inline(always)]
    pub fn set_mark(&self, mark: u32) {
        // SAFETY: the kernel passes every program a context that is valid while it runs, with a
        // writable mark.
        unsafe { write_volatile(&raw mut (*self.skb).mark, mark) };
    }

    /// Assigns the packet to a proxy listener.
    #[inline(always)]
    pub fn assign(&self, cookie: u64, kind: Kind) -> Result<(), ()> {
        let key = ListenerKey::new(cookie, kind);
        // SAFETY: the map has this key type; the reference is released below on the only path.
        let socket =
            unsafe { bpf_map_lookup_elem(addr_of!(LISTENERS).cast_mut().cast(), addr_of!(key).cast()) };
        if socket.is_null() {
            return Err(());
        }
        // SAFETY: the lookup above took the reference that is released here.
        let result = unsafe {
            let result = bpf_sk_assign(self.skb.cast(), socket, 0);
            bpf_sk_release(socket);
            result
        };
        if result == 0 { Ok(()) } else { Err(()) }
    }
}

/// Whether the device leads out of the pod.
#[inline(always)]
pub fn is_outer(device: u32) -> bool {
    let mut slot = 0;
    while slot < OUTER_MAX as u32 {
        if device != 0 && matches!(OUTER.get(slot), Some(outer) if *outer == device) {
            return true;
        }
        slot += 1;
    }
    false
}

/// Counts a dropped packet.
#[inline(always)]
pub fn count(cookie: u64, direction: Direction) {
    if let Some(counter) = FORWARDED.get_ptr_mut(&Forwarded::new(cookie, direction)) {
        // SAFETY: a map value outlives the run of the program. A concurrent increment on another
        // CPU may be lost; the counter is approximate.
        unsafe { *counter += 1 };
    }
}
