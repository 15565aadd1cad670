//! Addresses of which the operator said that nobody has them.
//!
//! Invariant: at most [`OUTSIDE_MAX`] are remembered, those said last.

use std::{collections::HashMap, time::Duration};

use ambit_model::NetworkAddress;
use tokio::time::Instant;

use super::Looked;

/// How long an answer is as good as a new one: about as long as a change may take to reach this node anyway.
pub(super) const FRESH: Duration = Duration::from_secs(2);
/// How long the last answer stands in for a silent operator.
pub(super) const REMEMBERED: Duration = Duration::from_secs(3600);
/// Addresses remembered.
pub(super) const OUTSIDE_MAX: usize = 256;

/// What to do about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: it was asked for just now.
    Use(Looked),
    /// Ask; the last answer will do if there is none.
    Refresh,
    /// Ask; without an answer nothing is known.
    Ask,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    /// When the operator said so.
    said: Instant,
    /// When it was asked last.
    asked: Instant,
}

/// Two halves: when the younger is full, it becomes the older one, which is forgotten.
#[derive(Debug, Default)]
pub(super) struct Outside {
    young: HashMap<NetworkAddress, Said>,
    old: HashMap<NetworkAddress, Said>,
}

impl Outside {
    /// `has_neighbours` says whether pods or services are known next to the address: then it may have become one.
    pub(super) fn plan(&self, address: &NetworkAddress, has_neighbours: bool, now: Instant) -> Plan {
        let Some(Said { said, asked }) = self.young.get(address).or_else(|| self.old.get(address)) else {
            return Plan::Ask;
        };
        let age = now.saturating_duration_since(*said);
        if age < FRESH {
            Plan::Use(Looked::Unknown)
        } else if has_neighbours || age >= REMEMBERED {
            Plan::Ask
        } else if now.saturating_duration_since(*asked) < FRESH {
            Plan::Use(Looked::UnknownBefore)
        } else {
            Plan::Refresh
        }
    }

    /// The operator says that nobody has it.
    pub(super) fn note(&mut self, address: NetworkAddress, now: Instant) {
        self.old.remove(&address);
        if self.young.len() >= OUTSIDE_MAX / 2 && !self.young.contains_key(&address) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(address, Said { said: now, asked: now });
    }

    /// The operator says nothing.
    pub(super) fn silent(&mut self, address: &NetworkAddress, now: Instant) {
        let Self { young, old } = self;
        if let Some(said) = young.get_mut(address).or_else(|| old.get_mut(address)) {
            said.asked = now;
        }
    }

    /// Somebody has it.
    pub(super) fn forget(&mut self, address: &NetworkAddress) {
        self.young.remove(address);
        self.old.remove(address);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
