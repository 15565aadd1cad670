//! The maps; names and shapes as `ambit-redirect-common` gives them.

use ambit_redirect_common::{
    Address, Flow, Forwarded, ListenerKey, OUTER_MAX, Opening, PodAddress, PodConfig, Probing,
};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, SockHash};

/// Pods of one node, with room for those that are going.
const PODS_MAX: u32 = 4096;
const ADDRESSES_OF_A_POD: u32 = 8;
const LISTENERS_OF_A_POD: u32 = 3;
const DIRECTIONS: u32 = 2;
/// Flows that were admitted and whose first packet is still on its way.
const ADMITTED_MAX: u32 = 8192;
/// What probes of all pods begin with.
const OPENINGS_MAX: u32 = PODS_MAX * 16;
/// Probes under way; further ones are judged as plaintext.
const PROBING_MAX: u32 = 8192;
/// Generations of the proxy on one node, including those that drain.
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

/// An entry that were forgotten for want of room would let its connection say anything.
#[map]
pub static PROBING: HashMap<u64, Probing> = HashMap::with_max_entries(PROBING_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static PROXIES: HashMap<u64, u64> = HashMap::with_max_entries(PROXIES_MAX, BPF_F_NO_PREALLOC);

/// Written by the loader before it attaches the instance.
///
/// `sk_lookup` may not ask for the cookie of its network namespace, so every instance is told.
#[map]
pub static NETNS: Array<u64> = Array::with_max_entries(1, 0);

#[map]
pub static OUTER: Array<u32> = Array::with_max_entries(OUTER_MAX as u32, 0);

/// Entries are made by the agent: no packet makes one.
#[map]
pub static FORWARDED: HashMap<Forwarded, u64> =
    HashMap::with_max_entries(PODS_MAX * DIRECTIONS, BPF_F_NO_PREALLOC);
