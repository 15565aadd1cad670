//! The hash for consistent hashing.
//!
//! Invariant: it depends only on its input, so that every worker and every waypoint pod selects the
//! same endpoint.

use std::hash::Hasher as _;

use fnv::FnvHasher;

/// Hash of a key: a header's or cookie's value, or the bytes of an address.
pub fn hash(key: &[u8]) -> u64 {
    let mut fnv = FnvHasher::default();
    fnv.write(key);
    mix(fnv.finish())
}

/// The score of one endpoint for one key; the highest wins.
pub fn score(key: u64, endpoint: u64) -> u64 {
    mix(key ^ endpoint)
}

/// Mixes the low bits of FNV into all bits (the finalizer of SplitMix64).
fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_in_every_process_and_release() {
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash(b"user-1"), 0xc499_b5f8_a721_df58);
        assert_ne!(hash(b"user-1"), hash(b"user-2"));
    }
}
