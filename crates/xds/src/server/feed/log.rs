//! The log of a feed: every resource at the position of its last change, with its aliases.
//!
//! Invariant: an alias leads to a name exactly as long as the current content of that name has the
//! alias.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

/// Removals kept in the log. A stream that is further behind is ended, and starts again from what
/// its client holds.
pub(crate) const TOMBSTONES_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Log {
    positions: HashMap<Arc<str>, u64>,
    pub(super) entries: BTreeMap<u64, Entry>,
    aliases: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    pub(super) head: u64,
    pub(super) tombstones: BTreeSet<u64>,
    /// Removals at or below this position are dropped.
    pub(super) floor: u64,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) content: Option<Content>,
}

#[derive(Clone)]
pub(super) struct Content {
    pub(super) version: Arc<str>,
    pub(super) encoded: Bytes,
    pub(super) aliases: Box<[Arc<str>]>,
}

/// The result of looking up a name for a reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Encoded resources with this name or alias.
    Resources(Vec<Bytes>),
    /// A resource that the reader has not been sent yet, but will be.
    Unsent,
    /// No resource has this name.
    Nothing,
}

impl Log {
    pub(super) fn record(&mut self, name: Arc<str>, content: Option<Content>) {
        let old = self.positions.get(&name).copied();
        let before =
            old.and_then(|number| self.entries.get(&number)).and_then(|entry| entry.content.as_ref());
        let unchanged = match (before, &content) {
            (None, None) => true,
            (Some(before), Some(after)) => before.version == after.version,
            (None, Some(_)) | (Some(_), None) => false,
        };
        if unchanged {
            return;
        }
        if let Some(number) = old {
            if let Some(Entry { content: Some(before), .. }) = self.entries.remove(&number) {
                self.unlink(&name, &before);
            }
            self.tombstones.remove(&number);
        }
        self.head += 1;
        match &content {
            None => drop(self.tombstones.insert(self.head)),
            Some(content) => {
                for alias in &content.aliases {
                    self.aliases.entry(alias.clone()).or_default().insert(name.clone());
                }
            }
        }
        self.positions.insert(name.clone(), self.head);
        self.entries.insert(self.head, Entry { name, content });
        self.forget_old_removals();
    }

    fn unlink(&mut self, name: &str, content: &Content) {
        for alias in &content.aliases {
            if let Some(names) = self.aliases.get_mut(alias) {
                names.remove(name);
                if names.is_empty() {
                    self.aliases.remove(alias);
                }
            }
        }
    }

    /// Resources with this name or alias, for a reader that has seen everything up to `seen`.
    pub(super) fn find(&self, name: &str, seen: u64) -> Found {
        let aliased = self.aliases.get(name).into_iter().flatten().map(|name| &**name);
        let mut found = Vec::new();
        for name in aliased.chain(std::iter::once(name)) {
            let Some(number) = self.positions.get(name) else { continue };
            match self.entries.get(number).and_then(|entry| entry.content.as_ref()) {
                // Resources that it references may not have been sent yet either.
                Some(_) if *number > seen => return Found::Unsent,
                Some(content) => found.push(content.encoded.clone()),
                None => {}
            }
        }
        if found.is_empty() { Found::Nothing } else { Found::Resources(found) }
    }

    fn forget_old_removals(&mut self) {
        while self.tombstones.len() > TOMBSTONES_MAX {
            let Some(number) = self.tombstones.pop_first() else { return };
            if let Some(entry) = self.entries.remove(&number) {
                self.positions.remove(&entry.name);
            }
            self.floor = number;
        }
    }

    pub(super) fn names(&self) -> HashSet<Arc<str>> {
        self.entries
            .values()
            .filter(|entry| entry.content.is_some())
            .map(|entry| entry.name.clone())
            .collect()
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        let entry = self.positions.get(name).and_then(|number| self.entries.get(number));
        entry.is_some_and(|entry| entry.content.is_some())
    }
}
