//! The resources of one type, as a log that any number of streams read.
//!
//! Invariant: every name occurs once in the log, at the position of its last change; positions only
//! grow. A reader at position N has seen the latest state of everything at or below N.

mod log;

use std::{
    collections::HashMap,
    fmt,
    fmt::Write,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::wire;

pub(crate) use log::Found;
use log::{Content, Log};

/// Largest resource: it must fit into a message, with space for the envelope.
pub(super) const RESOURCE_BYTES_MAX: usize = 3 << 20;
/// Size at which a response is closed and the rest goes into another one.
pub(super) const RESPONSE_BYTES_TARGET: usize = 1 << 20;
/// Bytes of a SHA-256 hash that form a version.
const VERSION_BYTES: usize = 12;

/// A part of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// The last number before it.
    pub(crate) after: u64,
    /// Its last number.
    pub(crate) bound: u64,
}

/// A change of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new or changed; an equal body is not a change.
    Set {
        /// Name, unique within its type.
        name: Arc<str>,
        /// The encoded message.
        body: Bytes,
    },
    /// It was removed.
    Remove {
        /// Name, unique within its type.
        name: Arc<str>,
    },
}

/// A resource too large to be sent; its previous version stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resource {name} of {type_url} has {bytes} bytes, more than {RESOURCE_BYTES_MAX}: make it smaller")]
pub struct TooLarge {
    /// Name, unique within its type.
    pub name: Arc<str>,
    /// Type URL.
    pub type_url: &'static str,
    /// Encoded size.
    pub bytes: usize,
}

/// The name of a resource and its content as the log holds it, none if it is removed.
type Encoded = Result<(Arc<str>, Option<Content>), TooLarge>;

/// The resources of one type. Clones share them.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

/// Returns the aliases of a resource with this body.
pub type Aliases = fn(&[u8]) -> Vec<String>;

struct Inner {
    type_url: &'static str,
    aliases: Aliases,
    log: RwLock<Log>,
    /// Position of the last change, and whether the first complete state was published.
    progress: watch::Sender<Progress>,
}

/// The progress of a feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) head: u64,
    pub(crate) synced: bool,
    pub(crate) closed: bool,
}

/// Which changes to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Sets,
    Removals,
    Both,
}

/// Changes that were read, and the position to continue from; `done` when nothing is left up to the
/// bound.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) resources: Vec<Bytes>,
    pub(crate) removed: Vec<String>,
    pub(crate) after: u64,
    pub(crate) done: bool,
}

/// The reader missed removals that have been dropped from the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooFarBehind;

impl Feed {
    /// An empty feed, not served before [`Feed::mark_synced`] or [`Feed::replace`].
    pub fn new(type_url: &'static str) -> Self {
        Self::with_aliases(type_url, |_| Vec::new())
    }

    /// Like [`Feed::new`]; clients can also query resources by alias.
    pub fn with_aliases(type_url: &'static str, aliases: Aliases) -> Self {
        let progress = watch::Sender::new(Progress::default());
        Self(Arc::new(Inner { type_url, aliases, log: RwLock::default(), progress }))
    }

    /// Type URL of the resources.
    pub fn type_url(&self) -> &'static str {
        self.0.type_url
    }

    /// Publishes changes in order. Returns those that are too large.
    #[must_use = "a refused resource keeps its old state"]
    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) -> Vec<TooLarge> {
        let encoded: Vec<_> = changes.into_iter().map(|change| self.encode(change)).collect();
        let mut refused = Vec::new();
        let mut log = self.write();
        for change in encoded {
            match change {
                Ok((name, content)) => log.record(name, content),
                Err(too_large) => refused.push(too_large),
            }
        }
        self.advance(log, None);
        refused
    }

    /// Publishes one change to many feeds, and encodes it once for all of the same type.
    #[must_use = "a refused resource keeps its old state"]
    pub fn publish_to_all<'a>(feeds: impl IntoIterator<Item = &'a Self>, change: &Change) -> Vec<TooLarge> {
        let mut encoded: Option<(&'static str, Encoded)> = None;
        let mut refused = Vec::new();
        for feed in feeds {
            let known = encoded.take().filter(|(type_url, _)| *type_url == feed.type_url());
            let (_, content) =
                encoded.insert(known.unwrap_or_else(|| (feed.type_url(), feed.encode(change.clone()))));
            match content.clone() {
                Ok((name, content)) => {
                    let mut log = feed.write();
                    log.record(name, content);
                    feed.advance(log, None);
                }
                Err(too_large) => refused.push(too_large),
            }
        }
        refused
    }

    /// Publishes the complete state and marks the feed as synced; resources that are not in it are
    /// removed.
    #[must_use = "a refused resource keeps its old state"]
    pub fn replace(&self, state: impl IntoIterator<Item = (Arc<str>, Bytes)>) -> Vec<TooLarge> {
        let encoded: Vec<_> =
            state.into_iter().map(|(name, body)| self.encode(Change::Set { name, body })).collect();
        let mut refused = Vec::new();
        let mut log = self.write();
        let mut stale = log.names();
        for change in encoded {
            match change {
                Ok((name, content)) => {
                    stale.remove(&name);
                    log.record(name, content);
                }
                Err(too_large) => {
                    stale.remove(&too_large.name);
                    refused.push(too_large);
                }
            }
        }
        stale.into_iter().for_each(|name| log.record(name, None));
        self.advance(log, Some(true));
        refused
    }

    /// Marks the first complete state as published; streams are served from now on.
    pub fn mark_synced(&self) {
        let log = self.write();
        self.advance(log, Some(true));
    }

    /// Ends the streams that read this feed, because nothing will be published any more; their
    /// clients subscribe again.
    pub fn close(&self) {
        self.0.progress.send_modify(|progress| progress.closed = true);
    }

    /// Whether the first complete state was published.
    pub fn is_synced(&self) -> bool {
        self.0.progress.borrow().synced
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        let log = self.read();
        log.entries.len() - log.tombstones.len()
    }

    /// Whether there are no resources.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.0.progress.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.0.progress.subscribe()
    }

    /// Reads changes after `after` up to and including `bound`, at most `bytes` but at least one
    /// change.
    pub(crate) fn read_after(&self, range: Range, part: Part, bytes: usize) -> Result<Batch, TooFarBehind> {
        self.read_filtered(range, part, bytes, &mut |_, _| true)
    }

    /// Reads the state up to `bound` for a client that holds `held` (name → version). Unchanged
    /// resources are skipped, and every name found is removed from `held`; what stays in it at the
    /// end was removed, or changes later.
    pub(crate) fn read_initial(
        &self,
        range: Range,
        bytes: usize,
        held: &mut HashMap<String, String>,
    ) -> Result<Batch, TooFarBehind> {
        self.read_filtered(range, Part::Sets, bytes, &mut |name, version| {
            held.remove(name).is_none_or(|held| held != version)
        })
    }

    /// Resources with this name or alias, for a reader that has seen everything up to `seen`.
    pub(crate) fn find(&self, name: &str, seen: u64) -> Found {
        self.read().find(name, seen)
    }

    /// The `names` that do not exist.
    pub(crate) fn missing(&self, names: impl Iterator<Item = String>) -> Vec<String> {
        let log = self.read();
        names.filter(|name| !log.exists(name)).collect()
    }

    fn read_filtered(
        &self,
        Range { after, bound }: Range,
        part: Part,
        bytes: usize,
        wanted: &mut dyn FnMut(&str, &str) -> bool,
    ) -> Result<Batch, TooFarBehind> {
        let mut batch = Batch { after, ..Batch::default() };
        if after >= bound {
            batch.done = true;
            return Ok(batch);
        }
        let log = self.read();
        if part != Part::Sets && after < log.floor {
            return Err(TooFarBehind);
        }
        let mut size = 0;
        for (number, entry) in log.entries.range(after + 1..=bound) {
            let cost = match &entry.content {
                Some(content) => content.encoded.len() + FIELD_BYTES,
                None => entry.name.len() + FIELD_BYTES,
            };
            if size > 0 && size + cost > bytes {
                return Ok(batch);
            }
            batch.after = *number;
            match &entry.content {
                Some(content) if part != Part::Removals => {
                    if wanted(&entry.name, &content.version) {
                        batch.resources.push(content.encoded.clone());
                        size += cost;
                    }
                }
                None if part != Part::Sets => {
                    batch.removed.push(entry.name.to_string());
                    size += cost;
                }
                Some(_) | None => {}
            }
        }
        batch.after = bound;
        batch.done = true;
        Ok(batch)
    }

    fn encode(&self, change: Change) -> Encoded {
        let (name, body) = match change {
            Change::Remove { name } => return Ok((name, None)),
            Change::Set { name, body } => (name, body),
        };
        let version = version(&body);
        let aliases = (self.0.aliases)(&body);
        let resource = wire::EncodedResource {
            version: version.clone(),
            resource: Some(wire::Any { type_url: self.0.type_url.to_owned(), value: body }),
            name: name.to_string(),
            aliases: aliases.clone(),
        };
        let encoded = Bytes::from(resource.encode_to_vec());
        if encoded.len() > RESOURCE_BYTES_MAX {
            return Err(TooLarge { name, type_url: self.0.type_url, bytes: encoded.len() });
        }
        let aliases = aliases.into_iter().map(Arc::from).collect();
        Ok((name, Some(Content { version: version.into(), encoded, aliases })))
    }

    /// Notifies readers after a write, once the lock is released.
    fn advance(&self, log: RwLockWriteGuard<'_, Log>, synced: Option<bool>) {
        let head = log.head;
        // Under the lock, so that two writers notify in the order of their writes.
        self.0.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.head = head;
            progress.synced = synced.unwrap_or(progress.synced);
            *progress != before
        });
        drop(log);
    }

    fn read(&self) -> RwLockReadGuard<'_, Log> {
        self.0.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Log> {
        self.0.log.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Size of the tag and length of one repeated field, at most.
pub(super) const FIELD_BYTES: usize = 6;

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("type_url", &self.0.type_url)
            .field("progress", &self.progress())
            .finish()
    }
}

/// Equal bodies have equal versions on every replica and after every restart.
fn version(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    digest.iter().take(VERSION_BYTES).fold(String::with_capacity(2 * VERSION_BYTES), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
