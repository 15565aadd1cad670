//! Addresses that the operator declared external.
//!
//! Invariant: at most [`OUTSIDE_MAX`] are remembered, the most recent ones.

use std::{collections::HashMap, time::Duration};

use ambit_model::NetworkAddress;
use tokio::time::Instant;

use super::looked::LookupResult;

/// How long an answer is used without a new query: about as long as a change may take to reach this
/// node anyway.
pub(super) const FRESH: Duration = Duration::from_secs(2);
/// How long the last answer is used while the operator does not answer.
pub(super) const REMEMBERED: Duration = Duration::from_secs(3600);
/// Number of remembered addresses.
pub(super) const OUTSIDE_MAX: usize = 256;

/// How to find out about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Use the recent answer.
    Use(LookupResult),
    /// Query; without an answer, use the previous one.
    Refresh,
    /// Query; without an answer the address stays unknown.
    Ask,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    /// When the operator last answered.
    said: Instant,
    /// When it was last queried.
    asked: Instant,
}

/// Two generations: when the younger one is full it becomes the older one, which is dropped.
#[derive(Debug, Default)]
pub(super) struct Outside {
    young: HashMap<NetworkAddress, Said>,
    old: HashMap<NetworkAddress, Said>,
}

impl Outside {
    /// `has_neighbours`: pods or services are known near the address, so it may have become one
    /// since.
    pub(super) fn plan(&self, address: &NetworkAddress, has_neighbours: bool, now: Instant) -> Plan {
        let Some(Said { said, asked }) = self.young.get(address).or_else(|| self.old.get(address)) else {
            return Plan::Ask;
        };
        let age = now.saturating_duration_since(*said);
        if age < FRESH {
            Plan::Use(LookupResult::Unknown)
        } else if has_neighbours || age >= REMEMBERED {
            Plan::Ask
        } else if now.saturating_duration_since(*asked) < FRESH {
            Plan::Use(LookupResult::UnknownBefore)
        } else {
            Plan::Refresh
        }
    }

    /// Records that the operator declared the address external.
    pub(super) fn note(&mut self, address: NetworkAddress, now: Instant) {
        self.old.remove(&address);
        if self.young.len() >= OUTSIDE_MAX / 2 && !self.young.contains_key(&address) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(address, Said { said: now, asked: now });
    }

    /// Records that the operator did not answer.
    pub(super) fn silent(&mut self, address: &NetworkAddress, now: Instant) {
        let Self { young, old } = self;
        if let Some(said) = young.get_mut(address).or_else(|| old.get_mut(address)) {
            said.asked = now;
        }
    }

    /// Drops an address that belongs to the cluster after all.
    pub(super) fn forget(&mut self, address: &NetworkAddress) {
        self.young.remove(address);
        self.old.remove(address);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
