//! The maps, with names and types from `ambit-redirect-common`.

use ambit_redirect_common::{
    Address, Flow, Forwarded, ListenerKey, OUTER_MAX, Opening, PodAddress, PodConfig, Probing,
};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, SockHash};

/// Pods of one node, including those that are being deleted.
const PODS_MAX: u32 = 4096;
const ADDRESSES_OF_A_POD: u32 = 8;
const LISTENERS_OF_A_POD: u32 = 3;
const DIRECTIONS: u32 = 2;
/// Admitted flows whose first packet is still on its way.
const ADMITTED_MAX: u32 = 8192;
/// Prefixes of the probes of all pods.
const OPENINGS_MAX: u32 = PODS_MAX * 16;
/// Open probe connections; further ones are subject to policy as plaintext.
const PROBING_MAX: u32 = 8192;
/// Cgroups of proxies on one node, including those that drain.
const PROXIES_MAX: u32 = 64;

#[map]
pub static PODS: HashMap<u64, PodConfig> = HashMap::with_max_entries(PODS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static ADDRESSES: HashMap<Address, PodAddress> =
    HashMap::with_max_entries(PODS_MAX * ADDRESSES_OF_A_POD, BPF_F_NO_PREALLOC);

#[map]
pub static LISTENERS: SockHash<ListenerKey> = SockHash::with_max_entries(PODS_MAX * LISTENERS_OF_A_POD, 0);

#[map]
pub static ADMITTED: LruHashMap<Flow, u64> = LruHashMap::with_max_entries(ADMITTED_MAX, 0);

#[map]
pub static OPENINGS: LpmTrie<Opening, u32> = LpmTrie::with_max_entries(OPENINGS_MAX, 0);

/// Not an LRU map: an evicted entry would let its connection send anything.
#[map]
pub static PROBING: HashMap<u64, Probing> = HashMap::with_max_entries(PROBING_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static PROXIES: HashMap<u64, u64> = HashMap::with_max_entries(PROXIES_MAX, BPF_F_NO_PREALLOC);

/// Written by the loader before it attaches the instance.
///
/// `sk_lookup` programs cannot query the cookie of their network namespace, so it is set per
/// instance.
#[map]
pub static NETNS: Array<u64> = Array::with_max_entries(1, 0);

#[map]
pub static OUTER: Array<u32> = Array::with_max_entries(OUTER_MAX as u32, 0);

/// The agent creates the entries; the programs only increment them.
#[map]
pub static FORWARDED: HashMap<Forwarded, u64> =
    HashMap::with_max_entries(PODS_MAX * DIRECTIONS, BPF_F_NO_PREALLOC);
