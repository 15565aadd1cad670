//! Typed access to the shared maps.

#![expect(unsafe_code, reason = "keys and values are plain data")]

use ambit_redirect_common::{Address, Forwarded, ListenerKey, Opening, PodAddress, PodConfig, map};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, SockHash};
use aya::{Ebpf, Pod};

use crate::{Error, Result};

#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct PodValue(pub(crate) PodConfig);

// SAFETY: `repr(C)` over words without padding; every bit pattern is valid.
unsafe impl Pod for PodValue {}

#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct ListenerPod(pub(crate) ListenerKey);

// SAFETY: `repr(C)` over words without padding; every bit pattern is valid.
unsafe impl Pod for ListenerPod {}

#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct AddressValue(pub(crate) PodAddress);

// SAFETY: `repr(C)` over integers without padding; every bit pattern is valid.
unsafe impl Pod for AddressValue {}

#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct ForwardedKey(pub(crate) Forwarded);

// SAFETY: `repr(C)` over integers without padding; every bit pattern is valid.
unsafe impl Pod for ForwardedKey {}

#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct OpeningData(pub(crate) Opening);

// SAFETY: `repr(C)` over integers without padding; every bit pattern is valid.
unsafe impl Pod for OpeningData {}

pub(crate) struct Maps {
    pub(crate) pods: HashMap<MapData, u64, PodValue>,
    pub(crate) addresses: HashMap<MapData, Address, AddressValue>,
    pub(crate) listeners: SockHash<MapData, ListenerPod>,
    pub(crate) openings: LpmTrie<MapData, OpeningData, u32>,
    pub(crate) proxies: HashMap<MapData, u64, u64>,
    pub(crate) forwarded: HashMap<MapData, ForwardedKey, u64>,
}

impl Maps {
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            pods: take(ebpf, map::PODS)?,
            addresses: take(ebpf, map::ADDRESSES)?,
            listeners: take(ebpf, map::LISTENERS)?,
            openings: take(ebpf, map::OPENINGS)?,
            proxies: take(ebpf, map::PROXIES)?,
            forwarded: take(ebpf, map::FORWARDED)?,
        })
    }
}

impl Maps {
    /// Map keys of the probe data admitted to one namespace.
    pub(crate) fn openings_of(&self, cookie: u64) -> Result<Vec<(u32, Opening)>> {
        let mut found = Vec::new();
        for key in self.openings.keys() {
            let key = key.map_err(failed(map::OPENINGS))?;
            let OpeningData(opening) = key.data();
            if opening.cookie == Opening::halves(cookie) {
                found.push((key.prefix_len(), opening));
            }
        }
        Ok(found)
    }
}

/// The corresponding key of the LPM trie.
pub(crate) fn opening_key((bits, opening): &(u32, Opening)) -> Key<OpeningData> {
    Key::new(*bits, OpeningData(*opening))
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M> {
    ebpf.take_map(name).ok_or(Error::Missing(name))?.try_into().map_err(failed(name))
}

/// Wraps an error with the name of its map.
pub(crate) fn failed(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { map, source: Box::new(source) }
}

/// Treats "no such entry" as success.
pub(crate) fn removed(map: &'static str, result: Result<(), MapError>) -> Result<()> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed(map)),
    }
}
