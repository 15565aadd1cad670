//! The services bound to one waypoint.
//!
//! Invariant: a service that could not be decoded stays in the table, so that its traffic is
//! refused instead of treated as unrelated to this waypoint.

use std::sync::Arc;

use ambit_model::{BoundService, NamespacedName};
use imbl::HashMap;

/// A service that is bound to this waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundEntry {
    /// Decoded. The same object (`Arc::ptr_eq`) as before while it does not change.
    Ready(Arc<BoundService>),
    /// Could not be decoded, with the reason: all its traffic is refused.
    Unreadable(Arc<str>),
}

/// All bound services; `None` until they have been received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bound {
    received: bool,
    entries: HashMap<NamespacedName, BoundEntry>,
}

impl Bound {
    pub(crate) fn received(&self) -> bool {
        self.received
    }

    pub(crate) fn get(&self, key: &NamespacedName) -> Option<&BoundEntry> {
        self.entries.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NamespacedName, &BoundEntry)> {
        self.entries.iter()
    }

    /// The table after one response; `None` if nothing changes.
    pub(crate) fn next(
        &self,
        changed: Vec<(NamespacedName, BoundEntry)>,
        removed: &[NamespacedName],
    ) -> Option<Self> {
        let mut next = Self { received: true, entries: self.entries.clone() };
        let mut is_news = !self.received;
        for (key, entry) in changed {
            if next.entries.get(&key) != Some(&entry) {
                next.entries.insert(key, entry);
                is_news = true;
            }
        }
        for key in removed {
            is_news |= next.entries.remove(key).is_some();
        }
        is_news.then_some(next)
    }
}
