//! A bucket per client identity, in a bounded table.
//!
//! Invariant: only full buckets are dropped, the longest full first, so dropping one admits nothing
//! extra. While none is full, new clients share one bucket per shard.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ambit_model::Spiffe;

use super::Bucket;

/// Clients with a bucket of their own, per limit.
pub(crate) const CLIENTS_MAX: usize = 4096;
/// Number of locks, so that workers rarely contend.
const SHARDS: usize = 16;
const SHARD_MAX: usize = CLIENTS_MAX / SHARDS;

/// The buckets of one limit.
#[derive(Debug, Default)]
pub(super) struct Clients {
    hasher: RandomState,
    /// Shared by clients without an identity.
    unknown: Bucket,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<Spiffe, Bucket>,
    /// Shared by clients for which there is no space.
    crowded: Bucket,
}

impl Clients {
    /// Applies a function to the bucket of `client`.
    pub(super) fn with<T>(
        &self,
        client: Option<&Spiffe>,
        now: Duration,
        act: impl FnOnce(&Bucket) -> T,
    ) -> T {
        let Some(client) = client else { return act(&self.unknown) };
        let at = self.hasher.hash_one(client) % SHARDS as u64;
        let shard = usize::try_from(at).ok().and_then(|at| self.shards.get(at));
        // Cannot happen: there are as many shards as remainders.
        let Some(shard) = shard else { return act(&self.unknown) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        act(shard.bucket(client, now))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().buckets.len()).sum()
    }
}

impl Shard {
    fn bucket(&mut self, client: &Spiffe, now: Duration) -> &Bucket {
        if !self.buckets.contains_key(client) {
            if self.buckets.len() >= SHARD_MAX && !self.make_room(now) {
                return &self.crowded;
            }
            self.buckets.insert(client.clone(), Bucket::default());
        }
        self.buckets.get(client).unwrap_or(&self.crowded)
    }

    /// Drops the bucket that has been full for the longest time.
    fn make_room(&mut self, now: Duration) -> bool {
        let full = self.buckets.iter().filter(|(_, bucket)| bucket.is_full(now));
        let oldest = full.min_by_key(|(_, bucket)| bucket.full_at()).map(|(client, _)| client.clone());
        oldest.is_some_and(|client| self.buckets.remove(&client).is_some())
    }
}
