//! The streams that one connection has room for.
//!
//! Invariant: a slot that was taken is given back when its [`Slot`] is dropped.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts the streams of one connection.
#[derive(Debug, Default)]
pub(crate) struct Slots(Arc<AtomicUsize>);

impl Slots {
    /// Streams in use.
    pub(crate) fn in_use(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more stream until the slot is dropped.
    pub(crate) fn take(&self) -> Slot {
        self.0.fetch_add(1, Ordering::Relaxed);
        Slot(Arc::clone(&self.0))
    }
}

/// A stream slot on a connection.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
